package mount

import "context"

// ctx shortens the table of attributes.
type ctx = context.Context

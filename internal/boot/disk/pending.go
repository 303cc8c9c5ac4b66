package disk

import (
	"context"
	"errors"
	"log/slog"
)

var errPending = errors.New("not built yet")

func choose([]Device, Preferences) (Choice, error)                        { return Choice{}, errPending }
func prepare(context.Context, Choice, Tools, *slog.Logger) (UROOT, error) { return UROOT{}, errPending }
func scan(context.Context, Roots) ([]Device, error)                       { return nil, errPending }

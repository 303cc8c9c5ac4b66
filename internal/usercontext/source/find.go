package source

import "context"

type reach int

const (
	localOnly reach = iota
	everywhere
)

func find(context.Context, Env, reach) (Found, error) { return Found{}, nil }

package client

import (
	"errors"

	"github.com/micavm/mica/cvmfs/client/internal/objectcache"
	"github.com/micavm/mica/cvmfs/client/internal/transfer"
)

var (
	// ErrOutdated says that a server offers a revision older than one seen before.
	ErrOutdated = errors.New("older than a revision seen before")
	// ErrNoTag says that the repository has no such tag.
	ErrNoTag = errors.New("no such tag")
	// ErrExternal says that a file's content is not in the repository, and that no
	// server is known that has it.
	ErrExternal = errors.New("the content lies on other servers, and none is known")
	// ErrPinned says that the revision is fixed for the life of the Repository.
	ErrPinned = errors.New("the revision is fixed")
	// ErrNoServer says that there is no server to ask.
	ErrNoServer = transfer.ErrNoServer
	// ErrNoProxy says that a list names no proxy that can be used.
	ErrNoProxy = transfer.ErrNoProxy
	// ErrCache says that there is no using the cache directory.
	ErrCache = errors.New("the cache cannot be used")
	// ErrCacheFull says that an object fits neither on the cache's disk nor in the
	// memory set aside for that case.
	ErrCacheFull = objectcache.ErrFull
)

// IsTransfer reports whether err says that something could not be had from any
// server; the text of err names each of them with its reason.
func IsTransfer(err error) bool {
	var t *transfer.Error
	return errors.As(err, &t)
}

// IsMissing reports whether err says that every server that was asked lacks
// something.
func IsMissing(err error) bool {
	var t *transfer.Error
	return errors.As(err, &t) && t.Missing()
}

package bookie

import "errors"

// Errors of requests, wrapped with the bookie they concern. A bookie's own answer
// arrives as a wire.Code and a bad entry as wire.ErrCorrupt, wrapped alike. Only
// a code of wire says something about what the bookie has; after all others the
// outcome of a request is unknown, but for ErrRefused, ErrOverloaded and ErrClosed
// where they say so.
var (
	// ErrTimeout: no answer in time. The bookie may yet do what it was asked.
	ErrTimeout = errors.New("no answer from the bookie in time")
	// ErrBroken: the connection broke while the request was under way.
	ErrBroken = errors.New("connection to the bookie broke")
	// ErrRefused: no connection could be made. The request was not sent.
	ErrRefused = errors.New("cannot connect to the bookie")
	// ErrCanceled: Call.Cancel came first.
	ErrCanceled = errors.New("request was canceled")
	// ErrOverloaded: the bookie has Config.MaxBytesInFlight under way. The
	// request was not sent.
	ErrOverloaded = errors.New("too many bytes under way to the bookie")
	// ErrClosed: the client was closed. A request that was refused with it at
	// once was not sent.
	ErrClosed = errors.New("connections to the bookie are closed")
)

package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quirelog/quire/storage/meta"
)

// readError translates the failure of a request that changes nothing.
func (r *request) readError(err error) error {
	return r.wrap(classify(err, false), err)
}

// writeError translates the failure of a request that may have been executed.
func (r *request) writeError(err error) error {
	return r.wrap(classify(err, true), err)
}

// wrap adds what only the request knows: its subject, and whether its own
// context or the store's ended.
func (r *request) wrap(class, err error) error {
	if ctxErr := r.caller.Err(); ctxErr != nil && cutShort(class) {
		if errors.Is(class, meta.ErrUnknownOutcome) {
			return fmt.Errorf("%q: %w: %w", r.subject, class, ctxErr)
		}
		return fmt.Errorf("%q: %w", r.subject, ctxErr)
	}
	if why := r.s.ended(); why != nil && cutShort(class) {
		if errors.Is(class, meta.ErrUnknownOutcome) {
			// Not ErrUnavailable too, which would say that it was not executed.
			return fmt.Errorf("%q: %w: %s", r.subject, class, why)
		}
		return fmt.Errorf("%q: %w", r.subject, why)
	}
	// The text of err, but not its identity: an ended context inside it would be
	// ours, not the caller's.
	return fmt.Errorf("%q: %w: %s", r.subject, class, err)
}

// cutShort says whether an error of this class can come from a context that ended.
func cutShort(class error) bool {
	return errors.Is(class, meta.ErrUnavailable) || errors.Is(class, meta.ErrUnknownOutcome)
}

// errNoSpaceUnknown is etcd's NOSPACE on a write: it is also the answer to the
// very write that passes the quota, which is executed (quotaApplierV3).
var errNoSpaceUnknown = fmt.Errorf("%w: %w", meta.ErrNoSpace, meta.ErrUnknownOutcome)

// classify finds the sentinel for an error of etcd's client. What is not known
// to have had no effect is ErrUnknownOutcome for a write.
func classify(err error, write bool) error {
	lost := meta.ErrUnavailable
	if write {
		lost = meta.ErrUnknownOutcome
	}
	// Both the typed errors of the client and the plain status errors of the
	// server in process come through here.
	var typed rpctypes.EtcdError
	if !errors.As(rpctypes.Error(err), &typed) {
		return classifyTransport(err, write, lost)
	}
	switch {
	case is(typed, rpctypes.ErrNoSpace):
		if write {
			return errNoSpaceUnknown
		}
		return meta.ErrNoSpace
	case is(typed, rpctypes.ErrCompacted):
		return meta.ErrCompacted
	case is(typed, rpctypes.ErrLeaseNotFound):
		return meta.ErrLeaseNotFound
	case is(typed, rpctypes.ErrRequestTooLarge), is(typed, rpctypes.ErrTooManyOps):
		return meta.ErrTooLarge
	case is(typed, rpctypes.ErrTooManyRequests), is(typed, rpctypes.ErrNoLeader),
		is(typed, rpctypes.ErrNotLeader), is(typed, rpctypes.ErrNotCapable), is(typed, rpctypes.ErrCorrupt),
		is(typed, rpctypes.ErrAuthFailed), is(typed, rpctypes.ErrUserEmpty), is(typed, rpctypes.ErrAuthOldRevision):
		// Refused at the door.
		return meta.ErrUnavailable
	}
	switch typed.Code() {
	case codes.InvalidArgument, codes.OutOfRange:
		return meta.ErrInvalid
	case codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.NotFound:
		// Wrong user, or a cluster in a state that serves nobody: not executed.
		return meta.ErrUnavailable
	}
	return lost
}

func is(e rpctypes.EtcdError, target error) bool { return e.Error() == target.Error() }

// classifyTransport is for errors that are not etcd's own: gRPC's, the context's.
func classifyTransport(err error, write bool, lost error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return lost
	}
	st, ok := status.FromError(err)
	if !ok {
		return lost
	}
	switch st.Code() {
	case codes.ResourceExhausted:
		if strings.Contains(st.Message(), "larger than max") {
			// gRPC's own limit, checked before anything is sent or handed on.
			return meta.ErrTooLarge
		}
	case codes.Unavailable, codes.DeadlineExceeded:
		if neverSent(st.Message()) {
			return meta.ErrUnavailable
		}
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return meta.ErrUnavailable
	}
	return lost
}

// neverSent recognizes gRPC's errors of a request for which there was no
// connection. gRPC has no code for that; these texts come only from setting up a
// connection and from waiting for one.
func neverSent(message string) bool {
	for _, text := range []string{
		"transport: Error while dialing",
		"transport: authentication handshake failed",
		"error reading server preface",
		"while waiting for connections to become ready",
		"there is no address available",
		"there is no connection available",
	} {
		if strings.Contains(message, text) {
			return true
		}
	}
	return false
}

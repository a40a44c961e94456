package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// failure translates the error of a request. What is not known to have had no
// effect is ErrUnknownOutcome if the request writes what matters.
func (s *Store) failure(caller context.Context, subject string, writes bool, err error) error {
	lost := metadata.ErrUnavailable
	if writes && !refused(err) {
		lost = metadata.ErrUnknownOutcome
	}
	switch ended := caller.Err(); {
	case ended != nil && lost == metadata.ErrUnknownOutcome:
		return fmt.Errorf("%s: %w: %w", subject, lost, ended)
	case ended != nil:
		return fmt.Errorf("%s: %w", subject, ended)
	case s.client.Ctx().Err() != nil && lost == metadata.ErrUnavailable:
		return fmt.Errorf("%s: %w", subject, metadata.ErrClosed)
	}
	// The text alone: a context's end inside it would be of our own time limit.
	return fmt.Errorf("%s: %w: %s", subject, lost, err)
}

// refused says whether etcd turned a request away before doing anything.
func refused(err error) bool {
	var typed rpctypes.EtcdError
	if !errors.As(rpctypes.Error(err), &typed) {
		return errors.Is(err, clientv3.ErrNoAvailableEndpoints)
	}
	switch {
	case typed.Error() == rpctypes.ErrNoSpace.Error():
		// It is also the answer to the very write that passes the quota, which is done.
		return false
	case typed.Error() == rpctypes.ErrNoLeader.Error(), typed.Error() == rpctypes.ErrTooManyRequests.Error():
		return true
	}
	switch typed.Code() {
	case codes.InvalidArgument, codes.OutOfRange, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.NotFound:
		return true
	}
	return false
}

package meta

import (
	"fmt"
	"slices"
	"strings"
)

// CheckTxn says whether a transaction is well formed and within the limits; the
// error is ErrTooLarge or ErrInvalid. Stores call it before they send anything.
func CheckTxn(conds []Cond, ops []Op) error {
	if len(conds) > MaxTxnOps || len(ops) > MaxTxnOps {
		return fmt.Errorf("%w: %d conditions and %d operations, at most %d of each", ErrTooLarge, len(conds), len(ops), MaxTxnOps)
	}
	bytes := 0
	for i := range conds {
		if conds[i].Key == "" {
			return fmt.Errorf("%w: a condition without a key", ErrInvalid)
		}
		bytes += len(conds[i].Key)
	}
	for i := range ops {
		op := &ops[i]
		switch {
		case op.Key == "":
			return fmt.Errorf("%w: an operation without a key", ErrInvalid)
		case op.Prefix && !op.Delete:
			return fmt.Errorf("%w: %q: only a deletion can be of a prefix", ErrInvalid, op.Key)
		case len(op.Value) > MaxValueBytes:
			return fmt.Errorf("%w: %q: a value of %d bytes, at most %d", ErrTooLarge, op.Key, len(op.Value), MaxValueBytes)
		}
		bytes += len(op.Key) + len(op.Value)
	}
	if bytes > MaxRequestBytes {
		return fmt.Errorf("%w: %d bytes of keys and values, at most %d", ErrTooLarge, bytes, MaxRequestBytes)
	}
	return checkDisjoint(ops)
}

// checkDisjoint finds a key that two ops would touch. In sorted order the keys
// under a prefix follow the prefix directly, so each op needs comparing only with
// the nearest op before it and the nearest prefix before it that covers others.
func checkDisjoint(ops []Op) error {
	if len(ops) < 2 {
		return nil
	}
	var order [MaxTxnOps]uint8
	sorted := order[:len(ops)]
	for i := range sorted {
		sorted[i] = uint8(i)
	}
	slices.SortFunc(sorted, func(a, b uint8) int { return strings.Compare(ops[a].Key, ops[b].Key) })
	var prefix *Op
	for i, at := range sorted {
		op := &ops[at]
		if i > 0 && ops[sorted[i-1]].Key == op.Key || prefix != nil && strings.HasPrefix(op.Key, prefix.Key) {
			return fmt.Errorf("%w: %q is touched by two operations", ErrInvalid, op.Key)
		}
		if op.Prefix {
			prefix = op
		}
	}
	return nil
}

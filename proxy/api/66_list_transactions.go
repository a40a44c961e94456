package api

import (
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// ListTransactions: v0-2
//
//	v1: filter by duration (KIP-994)
//	v2: filter by a pattern of transactional ids, RE2 (KIP-1152)
//
// There are no transactions. Names of states that Kafka does not have come back as such.

// transactionStates are the names of TransactionState.scala.
var transactionStates = []string{
	"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "PrepareEpochFence", "Dead",
}

// maxPatternBytes bounds what a pattern costs, since compiled it is much longer.
const maxPatternBytes = 4096

func (h *Handlers) listTransactions(r *proxy.Request, q *kmsg.ListTransactionsRequest) {
	resp := q.ResponseKind().(*kmsg.ListTransactionsResponse)
	if !validPattern(deref(q.TransactionalIDPattern)) {
		resp.ErrorCode = int16(protocol.InvalidRegularExpression)
		h.respond(r, resp)
		return
	}
	seen := make(map[string]bool)
	for _, name := range q.StateFilters {
		if !seen[name] && !slices.Contains(transactionStates, name) {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, name)
		}
		seen[name] = true
	}
	h.respond(r, resp)
}

func validPattern(pattern string) bool {
	if len(pattern) > maxPatternBytes {
		return false
	}
	_, err := regexp.Compile(pattern)
	return err == nil
}

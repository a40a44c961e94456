package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DescribeTransactions: v0
//
// There are no transactions: no transactional id is known.

func (h *Handlers) describeTransactions(r *proxy.Request, q *kmsg.DescribeTransactionsRequest) {
	resp := q.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	resp.TransactionStates = make([]kmsg.DescribeTransactionsResponseTransactionState, len(q.TransactionalIDs))
	for i, id := range q.TransactionalIDs {
		out := &resp.TransactionStates[i]
		out.Default()
		out.TransactionalID, out.ErrorCode = id, int16(protocol.TransactionalIDNotFound)
		if id == "" {
			out.ErrorCode = int16(protocol.InvalidRequest)
		}
	}
	h.respond(r, resp)
}

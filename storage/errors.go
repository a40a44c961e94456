package storage

import "errors"

// Errors of logs, wrapped with the log they concern. The comment names Kafka's
// error; proxy/api maps them in one file.
var (
	ErrOffsetOutOfRange = errors.New("offset out of range")                  // OFFSET_OUT_OF_RANGE
	ErrFencedEpoch      = errors.New("leader epoch is older than the log's") // FENCED_LEADER_EPOCH
	ErrUnknownEpoch     = errors.New("leader epoch is newer than the log's") // UNKNOWN_LEADER_EPOCH
	ErrLostOwnership    = errors.New("log is owned elsewhere")               // NOT_LEADER_OR_FOLLOWER; nothing was stored
	ErrNoSpace          = errors.New("no space left")                        // KAFKA_STORAGE_ERROR, retriable; nothing was stored
	// ErrUnknownOutcome comes with ErrLostOwnership of an append that was with the tier:
	// the log's next owner may have it or not. Only its producer may send it again.
	ErrUnknownOutcome    = errors.New("it is not known whether the batch is stored") // REQUEST_TIMED_OUT
	ErrStorage           = errors.New("log storage failed")                          // KAFKA_STORAGE_ERROR
	ErrCorrupt           = errors.New("stored batch is corrupt")                     // CORRUPT_MESSAGE
	ErrOutOfSequence     = errors.New("producer sequence out of order")              // OUT_OF_ORDER_SEQUENCE_NUMBER
	ErrUnknownProducer   = errors.New("nothing is known of the producer")            // UNKNOWN_PRODUCER_ID
	ErrProducerEpoch     = errors.New("producer epoch is fenced")                    // INVALID_PRODUCER_EPOCH
	ErrTxnState          = errors.New("invalid transaction state")                   // INVALID_TXN_STATE
	ErrCoordinatorFenced = errors.New("transaction coordinator is fenced")           // TRANSACTION_COORDINATOR_FENCED
	ErrMessageTooLarge   = errors.New("batch exceeds max.message.bytes")             // MESSAGE_TOO_LARGE
	ErrListTooLarge      = errors.New("batch exceeds segment.bytes")                 // RECORD_LIST_TOO_LARGE
	ErrPolicy            = errors.New("not allowed by the topic's cleanup.policy")   // POLICY_VIOLATION
	ErrUnknownTimestamp  = errors.New("unknown special timestamp")                   // UNSUPPORTED_VERSION
	ErrClosed            = errors.New("log is closed")                               // NOT_LEADER_OR_FOLLOWER
)

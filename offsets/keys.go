package offsets

// Keys names the facts of groups. All lie under Prefix, "quire/{cluster}/":
//
//	g/{slot}/{group}                    group record; its format is its writer's
//	o/{slot}/{group}/{topic id}/{chunk} offsets of PartitionsPerChunk partitions (FORMAT in encoding.go)
//	seq/{name}                          sequence of the committer of that name
//
// Slot and chunk are decimal, the slot of four digits. A topic id is 22 characters of
// base64url. A group id is any bytes; see escape.
type Keys struct{ Prefix string }

// PartitionsPerChunk is how many partitions of a topic share one key. A chunk
// of as many offsets with metadata of 4,096 bytes each, the default limit of
// Kafka, fits into a value of the metadata store.
const PartitionsPerChunk = 128

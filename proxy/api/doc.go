// Package api answers Kafka's requests: one file per API key, named by the
// key's number, and one table of what is served (table.go). It is the only
// package that knows both the protocol and the domain behind it.
//
// A file opens with the versions it serves and what each of them changed. Errors of
// the domain become Kafka's codes in errors.go and nowhere else.
//
// Handlers run on the loop of the connection and must not block; what may
// block runs inside Request.Go, or Request.GoSlow where it may wait for metadata. Produce and Fetch work on pooled state of their own,
// because an answer's bytes live longer than its request: until they are sent.
package api

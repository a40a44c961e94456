// Command quire speaks the Kafka protocol in front of a log of fenced ledgers.
//
// quire serve runs the server; the other verbs are small tools for people
// without Kafka's own. This package is wiring only: it reads the configuration,
// opens the parts from the lowest to the highest, and closes them in the
// opposite order. Where to read first:
//
//	main.go     the verbs
//	catalog.go  every configuration key: name, type, default, bounds, meaning
//	config.go   the file, then the environment, then the flags
//	serve.go    the parts put together, start-up and shutdown
//	metadata.go etcd, inside this process or a cluster
//	admin.go    metrics, health and profiles over HTTP
package main

// Package librdkafka_vendor is empty, as the one of that name in
// confluent-kafka-go 1.9.2 is to Go.
package librdkafka_vendor

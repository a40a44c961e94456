module github.com/quirelog/quire/conformance/clients/librdkafka-go

go 1.26.0

require (
	github.com/confluentinc/confluent-kafka-go/v2 v2.3.0
	github.com/quirelog/quire/conformance/clients/goclient v0.0.0
)

require github.com/confluentinc/confluent-kafka-go v0.0.0-00010101000000-000000000000 // indirect

replace github.com/quirelog/quire/conformance/clients/goclient => ../goclient

replace github.com/confluentinc/confluent-kafka-go/v2 => github.com/confluentinc/confluent-kafka-go v1.9.2

replace github.com/confluentinc/confluent-kafka-go => ./v1

module github.com/quirelog/quire/conformance/clients/librdkafka-go

go 1.26.0

require (
	github.com/confluentinc/confluent-kafka-go/v2 v2.6.1
	github.com/quirelog/quire/conformance/clients/goclient v0.0.0
)

replace github.com/quirelog/quire/conformance/clients/goclient => ../goclient

// Version 1.9.2 is built under the import path of version 2, so that one source
// serves both. It imports an empty package of itself under its own path; this
// module is that package.
module github.com/confluentinc/confluent-kafka-go

go 1.26.0

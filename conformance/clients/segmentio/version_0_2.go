//go:build kafkago0_2

package main

import (
	"github.com/quirelog/quire/conformance/clients/goclient"
	"github.com/segmentio/kafka-go"
)

// This version has no headers, its compression writes nothing compressed, and
// it has no calls beyond those of all versions.

func setCodec(*kafka.WriterConfig, string) {}

func setHeaders(*kafka.Message, []goclient.Header) {}

func headers(kafka.Message) []goclient.Header { return nil }

var newerChecks []goclient.Check

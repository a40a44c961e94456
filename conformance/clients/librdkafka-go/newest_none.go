//go:build librdkafka2_3

package main

import "github.com/quirelog/quire/conformance/clients/goclient"

// newestChecks are of calls that this version does not have yet.
var newestChecks []goclient.Check

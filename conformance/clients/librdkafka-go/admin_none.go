//go:build librdkafka1

package main

import "github.com/quirelog/quire/conformance/clients/goclient"

// newerAdminChecks are of calls that this version does not have yet.
var newerAdminChecks []goclient.Check

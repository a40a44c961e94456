module github.com/quirelog/quire/conformance/clients/goclient

go 1.26.0

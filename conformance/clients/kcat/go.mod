module github.com/quirelog/quire/conformance/clients/kcat

go 1.26.0

require github.com/quirelog/quire/conformance/clients/goclient v0.0.0

replace github.com/quirelog/quire/conformance/clients/goclient => ../goclient

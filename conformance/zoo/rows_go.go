package main

import (
	"context"
	"slices"
	"strings"

	"github.com/quirelog/quire/conformance/peer"
)

// A goClient is one version of a library with a Go program in clients/folder.
type goClient struct {
	row     string // beginning of the rows' names
	client  string
	version string
	folder  string
	flags   []string // of go build: the module file and tags of this version
	codecs  []string // that the newest protocol version lets it write
}

// A protocol is a version that a client is told to speak.
type protocol struct {
	name string // "" for the client's own choice
	ci   bool
}

func rowsGo() []Row {
	negotiated := []protocol{{}}
	saramas := func(names ...string) []protocol {
		var all []protocol
		for _, name := range names {
			all = append(all, protocol{name: name})
		}
		return all
	}
	early := []string{"0.8.2.2", "0.9.0.1", "0.10.0.1", "0.10.1.1", "0.10.2.1", "0.11.0.2", "1.1.0.0", "2.0.0.0"}
	return slices.Concat(
		goRows(goClient{row: "librdkafka-go-1.9.2", client: "confluent-kafka-go", version: "1.9.2", folder: "librdkafka-go",
			flags: []string{"-modfile=1.9.2.mod", "-tags=librdkafka1"}, codecs: codecs}, negotiated),
		goRows(goClient{row: "librdkafka-go-2.3.0", client: "confluent-kafka-go", version: "2.3.0", folder: "librdkafka-go",
			flags: []string{"-modfile=2.3.0.mod", "-tags=librdkafka2_3"}, codecs: codecs}, negotiated),
		goRows(goClient{row: "librdkafka-go-2.6.1", client: "confluent-kafka-go", version: "2.6.1", folder: "librdkafka-go",
			flags: []string{"-modfile=2.6.1.mod"}, codecs: codecs}, negotiated),
		goRows(goClient{row: "librdkafka-go-2.11.1", client: "confluent-kafka-go", version: "2.11.1", folder: "librdkafka-go",
			codecs: codecs}, negotiated),
		goRows(goClient{row: "kcat", client: "kcat", version: "Debian's", folder: "kcat", codecs: codecs},
			[]protocol{{}, {name: "0.8.2.2", ci: true}, {name: "0.9.0.1"}, {name: "0.10.0.1"}}),
		goRows(goClient{row: "sarama-1.19.0", client: "Shopify/sarama", version: "1.19.0", folder: "sarama",
			flags: []string{"-modfile=shopify-1.19.0.mod", "-tags=sarama1_19"}, codecs: codecs[:4]},
			[]protocol{{name: "0.8.2.2", ci: true}, {name: "0.9.0.1"}, {name: "0.10.0.1"}, {name: "0.10.1.1"}, {name: "0.10.2.1"}, {name: "0.11.0.2"}, {name: "1.1.0.0"}, {name: "2.0.0.0"}}),
		goRows(goClient{row: "sarama-1.30.0", client: "Shopify/sarama", version: "1.30.0", folder: "sarama",
			flags: []string{"-modfile=shopify-1.30.0.mod"}, codecs: codecs},
			saramas(append(early[:len(early):len(early)], "2.4.0.0", "2.8.1.0")...)),
		goRows(goClient{row: "sarama-1.38.1", client: "Shopify/sarama", version: "1.38.1", folder: "sarama",
			flags: []string{"-modfile=shopify-1.38.1.mod"}, codecs: codecs},
			saramas("0.8.2.2", "0.10.2.1", "1.1.0.0", "2.8.1.0", "3.3.1.0")),
		goRows(goClient{row: "sarama-1.61.1", client: "IBM/sarama", version: "1.61.1", folder: "sarama", codecs: codecs},
			append(saramas(append(early[:len(early):len(early)], "2.4.1.0", "2.8.2.0", "3.3.2.0", "3.9.2.0")...), protocol{name: "4.3.1.0", ci: true})),
		goRows(goClient{row: "franz-go-1.22.2", client: "franz-go", version: "1.22.2", folder: "franz-go", codecs: codecs},
			append(saramas("0.8.2", "0.9.0", "0.10.0", "0.10.1", "0.10.2", "0.11.0", "1.1", "2.1", "2.4", "2.8", "3.9"), protocol{ci: true})),
		goRows(goClient{row: "segmentio-0.2.0", client: "segmentio/kafka-go", version: "0.2.0", folder: "segmentio",
			flags: []string{"-modfile=0.2.0.mod", "-tags=kafkago0_2"}, codecs: codecs[:1]}, negotiated),
		goRows(goClient{row: "segmentio-0.4.51", client: "segmentio/kafka-go", version: "0.4.51", folder: "segmentio", codecs: codecs}, negotiated),
	)
}

// goRows are the rows of one version of a library, one for each protocol.
func goRows(c goClient, protocols []protocol) []Row {
	var rows []Row
	for _, p := range protocols {
		r := Row{
			Name: c.row, Client: c.client, Version: c.version, CI: p.ci,
			Headers: true, Timestamps: true, Nulls: true,
			Codecs: c.codecs, Reads: c.codecs,
		}
		if p.name != "" {
			r.Name += "-as-" + p.name
			r.Version += " as " + p.name
			// The formats of the release it plays: magic 0 before 0.10.0, 1
			// before 0.11; LZ4 came with 0.8.2 and was framed wrongly before
			// 0.10, zstd came with 2.1.
			r.Timestamps = !before(p.name, "0.10")
			r.Headers = !before(p.name, "0.11")
			if before(p.name, "2.1") {
				r.Codecs = slices.DeleteFunc(slices.Clone(c.codecs), func(codec string) bool { return codec == "zstd" })
				r.Reads = r.Codecs
			}
		}
		adjustGo(c, p, &r)
		env := []string{"ZOO_VERSION=" + p.name, "ZOO_CARRIES=" + carries(r)}
		r.Install = func(ctx context.Context, t *Tools) (Program, error) {
			if c.folder == "kcat" {
				if _, err := peer.Kcat(ctx); err != nil {
					return Program{}, err
				}
			}
			binary, err := t.GoBuild(ctx, c.row, t.Source(c.folder), c.flags...)
			return Program{Args: []string{binary}, Env: env}, err
		}
		rows = append(rows, r)
	}
	return rows
}

// adjustGo holds what a client cannot do whatever the protocol.
func adjustGo(c goClient, p protocol, r *Row) {
	switch c.folder {
	case "sarama":
		if before(p.name, "0.10") { // Its own limit.
			r.Codecs = slices.DeleteFunc(slices.Clone(r.Codecs), func(codec string) bool { return codec == "lz4" })
		}
	case "kcat": // Its command line sets no times, and headers only for a whole run.
		r.Headers, r.Timestamps = false, false
	case "segmentio":
		r.Nulls = false // It reads null as empty.
		if c.version == "0.2.0" {
			r.Headers = false
		}
	}
}

func carries(r Row) string {
	var all []string
	for name, yes := range map[string]bool{"headers": r.Headers, "timestamps": r.Timestamps, "nulls": r.Nulls} {
		if yes {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// before compares releases number by number: 0.9.0.1 is before 0.10.
func before(release, other string) bool {
	a, b := strings.Split(release, "."), strings.Split(other, ".")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return len(a[i]) < len(b[i]) || len(a[i]) == len(b[i]) && a[i] < b[i]
		}
	}
	return false
}

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
	flags   []string // of go build: the module file and tags of this version; none for go.mod's own
	codecs  []string // that the newest protocol version lets it write
}

// goCI are the rows of CI's short set: one of each kind, quickly built.
var goCI = []string{"kcat-as-0.8.2.2", "sarama-1.19.0-as-0.8.2.2", "sarama-1.61.1-as-4.3.1", "franz-go-1.22.2"}

func rowsGo() []Row {
	librdkafka := func(version string, flags ...string) []Row {
		return goRows(goClient{row: "librdkafka-go-" + version, client: "confluent-kafka-go (librdkafka)", version: version,
			folder: "librdkafka-go", flags: flags, codecs: codecs}, "")
	}
	shopify := func(version string, codecs []string, flags ...string) goClient {
		return goClient{row: "sarama-" + version, client: "Shopify/sarama", version: version,
			folder: "sarama", flags: append(flags, "-modfile=shopify-"+version+".mod"), codecs: codecs}
	}
	ibm := goClient{row: "sarama-1.61.1", client: "IBM/sarama", version: "1.61.1", folder: "sarama", codecs: codecs}
	franz := goClient{row: "franz-go-1.22.2", client: "franz-go", version: "1.22.2", folder: "franz-go", codecs: codecs}
	kcat := goClient{row: "kcat", client: "kcat (librdkafka)", version: "Debian's", folder: "kcat", codecs: codecs}
	segmentio := goClient{row: "segmentio-0.4.51", client: "segmentio/kafka-go", version: "0.4.51", folder: "segmentio", codecs: codecs}
	segmentioOld := goClient{row: "segmentio-0.2.0", client: "segmentio/kafka-go", version: "0.2.0", folder: "segmentio",
		flags: []string{"-modfile=0.2.0.mod", "-tags=kafkago0_2"}, codecs: codecs[:1]}
	return slices.Concat(
		librdkafka("1.9.2", "-modfile=1.9.2.mod", "-tags=librdkafka1"),
		librdkafka("2.3.0", "-modfile=2.3.0.mod", "-tags=librdkafka2_3"),
		librdkafka("2.6.1", "-modfile=2.6.1.mod"),
		librdkafka("2.11.1"),
		goRows(kcat, "", "0.8.2.2", "0.9.0.1", "0.10.0.1"),
		goRows(shopify("1.19.0", codecs[:4], "-tags=sarama1_19"), "0.8.2.2", "0.9.0.1", "0.10.0.1", "0.10.1.1", "0.10.2.1", "0.11.0.2", "1.1.0", "2.0.0"),
		goRows(shopify("1.30.0", codecs), "0.8.2.2", "0.10.2.1", "2.0.0", "2.8.1"),
		goRows(shopify("1.38.1", codecs), "0.9.0.1", "1.1.0", "3.3.1"),
		goRows(ibm, "0.8.2.2", "0.9.0.1", "0.10.0.1", "0.10.2.1", "0.11.0.2", "1.1.0", "2.4.1", "2.8.2", "3.9.2", "4.3.1"),
		goRows(franz, "0.8.2", "0.9.0", "0.10.0", "0.10.1", "0.10.2", "0.11.0", "1.1", "2.1", "2.4", "2.8", "3.9", ""),
		goRows(segmentioOld, ""),
		goRows(segmentio, ""),
	)
}

// goRows are the rows of one version of a library, one for each release whose
// protocol it is told to speak; "" leaves it to the library.
func goRows(c goClient, protocols ...string) []Row {
	var rows []Row
	for _, p := range protocols {
		r := Row{
			Name: c.row, Client: c.client, Version: c.version,
			Headers: true, Timestamps: true, Nulls: true,
			Codecs: c.codecs, Reads: c.codecs,
		}
		if p != "" {
			r.Name += "-as-" + p
			r.Version += " as " + p
			// The formats of the release it plays: magic 0 before 0.10.0, 1
			// before 0.11; LZ4 came with 0.8.2 and was framed wrongly before
			// 0.10, zstd came with 2.1.
			r.Timestamps = !before(p, "0.10")
			r.Headers = !before(p, "0.11")
			if before(p, "2.1") {
				r.Codecs = without(c.codecs, "zstd")
				r.Reads = r.Codecs
			}
		}
		adjustGo(c, p, &r)
		r.CI = slices.Contains(goCI, r.Name)
		env := []string{"ZOO_VERSION=" + p, "ZOO_CARRIES=" + carries(r)}
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
func adjustGo(c goClient, p string, r *Row) {
	old := p != "" && before(p, "0.10")
	switch {
	case c.folder == "franz-go" && old: // It writes LZ4 in message format 0, and cannot read it.
		r.Reads = without(r.Codecs, "lz4")
		r.Impossible = map[string]string{"consume-lz4": "the library does not know the header checksum that LZ4 has in message format 0"}
	case c.folder == "sarama" && old: // Its own limit.
		r.Codecs = without(r.Codecs, "lz4")
		r.Reads = r.Codecs
	}
	switch c.folder {
	case "kcat": // Its command line sets no times, and headers only for a whole run.
		r.Headers, r.Timestamps = false, false
	case "segmentio":
		r.Nulls = false           // It reads null as empty.
		if c.version == "0.2.0" { // Nor does it show times.
			r.Headers, r.Timestamps = false, false
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

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An unreadable is what some clients cannot read of what others write, whatever
// server is between them: the fault lies in one of the two programs.
type unreadable struct {
	consumers, producers *regexp.Regexp // of rows, whole names
	codecs               []string       // nil: all
	reason               string
}

var unreadables = []unreadable{
	{
		consumers: regexp.MustCompile(`^kafka-python-1\.4\.7(-as-1\.0)?$`),
		producers: regexp.MustCompile(`^(franz-go-1\.22\.2(-as-(0\.11|[1-9]).*)?|java-(0\.11|[1-9]).*|(librdkafka-go|rust-rdkafka)-.*|sarama-[0-9.]+-as-(0\.11|[1-9]).*|segmentio-0\.4\.51)$`),
		reason:    "kafka-python 1.4.7 asks a header that has no value for its length, a TypeError",
	},
	{
		consumers: regexp.MustCompile(`^(sarama-1\.38\.1-as-(1\.1\.0|3\.3\.1)|segmentio-0\.4\.51)$`),
		producers: regexp.MustCompile(`^aiokafka-0\.14\.0$`),
		codecs:    []string{"lz4"},
		reason:    "their LZ4 libraries do not agree on the checksum of a block: the consumers refuse the one that aiokafka's writes",
	},
	{
		consumers: regexp.MustCompile(`^kafka-rust-0\.10\.0$`),
		producers: regexp.MustCompile(`^kcat.*$`),
		codecs:    []string{"gzip"},
		reason:    emptyLeftOut,
	},
	{
		consumers: regexp.MustCompile(`^kafka-rust-0\.10\.0$`),
		producers: regexp.MustCompile(`^kcat(-as-0\.10\.0\.1)?$`),
		codecs:    []string{"snappy"},
		reason:    emptyLeftOut,
	},
}

const emptyLeftOut = "kafka-rust leaves out the record with an empty value of a compressed set"

// whyUnreadable returns why consumer cannot read what producer writes in the
// codec, "" when it can.
func whyUnreadable(consumer, codec, producer string) string {
	for _, u := range unreadables {
		if u.consumers.MatchString(consumer) && u.producers.MatchString(producer) && (u.codecs == nil || slices.Contains(u.codecs, codec)) {
			return u.reason
		}
	}
	return ""
}

// unreadablePairs lists each reason once, with the rows that it is for.
func unreadablePairs(all []Row) string {
	matching := func(p *regexp.Regexp) string {
		var names []string
		for _, r := range all {
			if p.MatchString(r.Name) {
				names = append(names, r.Name)
			}
		}
		return strings.Join(names, ", ")
	}
	var b strings.Builder
	for _, u := range unreadables {
		codec := "everything"
		if u.codecs != nil {
			codec = strings.Join(u.codecs, " and ")
		}
		fmt.Fprintf(&b, "- %s reading %s by %s: %s\n", matching(u.consumers), codec, matching(u.producers), u.reason)
	}
	return b.String()
}

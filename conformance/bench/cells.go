package main

import (
	"fmt"
	"slices"
)

// A contender is a server with a way to set up its topics.
type contender struct {
	Key     string // on the command line and in the results
	Title   string
	Server  string // kafka or quire: contenders of one server share its process
	Configs map[string]string
}

var contenders = []contender{
	{Key: "kafka", Title: "Kafka as shipped", Server: "kafka"},
	{Key: "kafka-flush", Title: "Kafka flush.messages=1", Server: "kafka", Configs: map[string]string{"flush.messages": "1"}},
	{Key: "quire", Title: "Quire", Server: "quire"},
}

// floor is Quire on a file system in memory. It runs the paced cells only, and
// tells how much of a latency is the tool's, the machine's and the protocol's: no
// server that answers over a socket gets below it by a faster disk.
var floor = contender{Key: "quire-tmpfs", Title: "Quire on tmpfs", Server: "quire-tmpfs"}

// outside is Quire over an etcd of one member in a process of its own, as on a
// cluster. It runs the cells of commits only.
var outside = contender{Key: "quire-etcd", Title: "Quire over an external etcd", Server: "quire-etcd"}

// everybody is who may run.
func everybody() []contender { return append(slices.Clone(contenders), floor, outside) }

// partial says whether a server runs the cells of some sections only.
func partial(server string) bool { return server == floor.Server || server == outside.Server }

// A client is a set of producer properties.
type client struct {
	Key        string
	Properties []string
}

var (
	defaults = client{"defaults", nil}
	lz4      = client{"lz4", []string{"linger.ms=5", "batch.size=65536", "compression.type=lz4"}}
)

// A shape is what a group of cells has in common. The cells of a shape run
// within a few minutes on each server in turn: paired runs stay close in time.
type shape struct {
	RecordBytes int
	Partitions  int
}

func (s shape) String() string {
	size := fmt.Sprintf("%d B", s.RecordBytes)
	if s.RecordBytes%1000 == 0 {
		size = fmt.Sprintf("%d KB", s.RecordBytes/1000)
	}
	if s.Partitions == 1 {
		return size + ", 1 partition"
	}
	return fmt.Sprintf("%s, %d partitions", size, s.Partitions)
}

func (s shape) key() string { return fmt.Sprintf("%d-%d", s.RecordBytes, s.Partitions) }

// shapes use the tool's own idea of 1 KB, 1,000 bytes.
var shapes = []shape{{100, 1}, {100, 8}, {1000, 1}, {1000, 8}}

// latencyShapes have the paced and the reading cells as well.
func (s shape) paced() bool { return s.RecordBytes == 1000 }

// nominal is about what Kafka reaches on two cores, records per second. It
// only sizes the runs, so that each takes about as long as asked for; a pair
// always sends the same number of records to both servers where they are
// compared as shipped.
func nominal(s shape, c client, contender string) int {
	type key struct {
		bytes, partitions int
		client            string
	}
	rates := map[key][2]int{ // as shipped, flush.messages=1
		{100, 1, "defaults"}:  {850_000, 190_000},
		{100, 8, "defaults"}:  {1_600_000, 200_000},
		{100, 1, "lz4"}:       {1_200_000, 400_000},
		{100, 8, "lz4"}:       {1_400_000, 400_000},
		{1000, 1, "defaults"}: {150_000, 21_000},
		{1000, 8, "defaults"}: {310_000, 24_000},
		{1000, 1, "lz4"}:      {220_000, 65_000},
		{1000, 8, "lz4"}:      {235_000, 60_000},
	}
	r := rates[key{s.RecordBytes, s.Partitions, c.Key}]
	if contender == "kafka-flush" {
		return r[1]
	}
	return r[0]
}

package main

import (
	"context"
	"path/filepath"
	"slices"

	"github.com/quirelog/quire/conformance/peer"
)

// A javaClient is a generation of Kafka's own clients: what Maven brings, the
// sources of clients/java-clients that fit its API, and the classes of checks
// for what it can do beside writing and reading.
type javaClient struct {
	client, version string
	artifacts       []string
	codecs          []string // nil for those of all of its time
	jvm             []string
	sources         []string
	checks          []string
	ci              bool
}

// From the generation where it came on, a newer client has it too.
var (
	sources09  = []string{"reader.java", "group.java"}
	sources010 = append(slices.Clone(sources09), "writer-0.10.java", "api-0.10.java")
	sources011 = append(slices.Clone(sources09), "writer-0.11.java", "times.java", "admin-0.11.java")

	checks09  = []string{"GroupChecks"}
	checks010 = append(slices.Clone(checks09), "TimeChecks")
	checks011 = append(slices.Clone(checks010), "IdempotentChecks", "Admin0_11")
	checks20  = append(slices.Clone(checks011), "AdminAlter0_11", "Admin1_1", "Admin2_0")
	checks28  = append(slices.Clone(checks20), "GroupChecks2_4", "Admin2_8")
)

// codecs082 are the codecs before 2.1 brought zstd.
var codecs082 = []string{"none", "gzip", "snappy", "lz4"}

// noZooKeeper is why a part of the oldest client cannot work without ZooKeeper.
const noZooKeeper = "the high-level consumer of 0.8 and 0.9 finds brokers and shares partitions through ZooKeeper, not through the broker"

func rowsJava() []Row {
	var rows []Row
	for _, v := range []javaClient{
		oldest(simple("scala", "0.8.1.1", "org.apache.kafka:kafka_2.10:0.8.1.1", "writer-scala.java", "commit-0.8.1.java")),
		simple("scala", "0.8.2.2", "org.apache.kafka:kafka_2.11:0.8.2.2", "writer-scala.java", "commit-0.8.2.java"),
		simple("scala", "0.9.0.1", "org.apache.kafka:kafka_2.11:0.9.0.1", "writer-scala.java", "commit-0.9.java"),
		simple("scala", "0.10.2.2", "org.apache.kafka:kafka_2.11:0.10.2.2", "writer-scala.java", "commit-0.9.java"),
		simple("java", "0.8.2.2", "org.apache.kafka:kafka_2.11:0.8.2.2", "writer-0.8.java", "commit-0.8.2.java"),
		{version: "0.9.0.1", ci: true, checks: checks09, sources: append(slices.Clone(sources09), "writer-0.8.java", "api-0.9.java")},
		{version: "0.10.0.1", checks: checks09, sources: sources010},
		{version: "0.10.2.2", ci: true, checks: checks010, sources: append(slices.Clone(sources010), "times.java")},
		{version: "0.11.0.3", checks: append(slices.Clone(checks011), "AdminAlter0_11"),
			sources: append(slices.Clone(sources011), "api-0.11.java", "describe-0.11.java", "admin-0.11-alter.java")},
		{version: "1.1.1", checks: append(slices.Clone(checks011), "AdminAlter0_11", "Admin1_1"),
			sources: append(slices.Clone(sources011), "api-0.11.java", "describe-0.11.java", "admin-0.11-alter.java", "admin-1.1.java")},
		{version: "2.0.1", checks: checks20,
			sources: append(slices.Clone(sources011), "api-2.0.java", "describe-0.11.java", "admin-0.11-alter.java", "admin-1.1.java", "admin-2.0.java")},
		{version: "2.8.2", checks: checks28,
			sources: append(slices.Clone(sources011), "api-2.0.java", "describe-0.11.java", "admin-0.11-alter.java", "admin-1.1.java", "admin-2.0.java", "admin-2.8.java")},
		{version: "3.9.1", checks: append(slices.Clone(checks28), "Admin3_9"),
			sources: append(slices.Clone(sources011), "api-2.0.java", "describe-3.1.java", "admin-0.11-alter.java", "admin-1.1.java", "admin-2.0.java", "admin-2.8.java", "admin-3.9.java")},
		{version: "4.4.0", ci: true,
			checks:  append(without(checks28, "AdminAlter0_11"), "GroupChecks4_0", "Admin3_9", "Admin4_1"),
			sources: append(slices.Clone(sources011), "api-2.0.java", "describe-3.1.java", "admin-1.1.java", "admin-2.0.java", "admin-2.8.java", "admin-3.9.java", "admin-4.1.java")},
	} {
		rows = append(rows, v.row())
	}
	return rows
}

// simple is a client from before the Java consumer, with either producer.
func simple(language, version, artifact, writer, commit string) javaClient {
	client := "Scala producer, SimpleConsumer"
	if language == "java" {
		client = "Java producer, SimpleConsumer"
	}
	v := javaClient{
		client: client, version: version, artifacts: []string{artifact}, ci: version == "0.8.2.2",
		sources: []string{writer, "reader-simple.java", "simple.java", commit},
		checks:  []string{"SimpleChecks", "CommitChecks"},
	}
	if language == "scala" && version != "0.8.1.1" { // which has them in other packages
		v.sources = append(v.sources, "tools.java")
		v.checks = append(v.checks, "ToolChecks")
		if commit == "commit-0.9.java" {
			v.checks = append(v.checks, "ToolChecks0_9")
		}
	}
	return v
}

// oldest has no lz4, and a snappy library that a Java of today has to be opened
// for.
func oldest(v javaClient) javaClient {
	v.codecs = []string{"none", "gzip", "snappy"}
	v.jvm = []string{"--add-opens=java.base/java.lang=ALL-UNNAMED"}
	return v
}

func without(list []string, element string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == element })
}

func (v javaClient) row() Row {
	r := Row{Client: v.client, Version: v.version, CI: v.ci, Install: v.install, Nulls: true, Codecs: codecs082}
	has := func(source string) bool { return slices.Contains(v.sources, source) }
	switch {
	case has("writer-scala.java"):
		r.Name = "scala-" + v.version
	default:
		r.Name = "java-" + v.version
	}
	if r.Client == "" {
		r.Client = "Java kafka-clients"
	}
	if has("reader-simple.java") {
		r.Impossible = map[string]string{"group": noZooKeeper}
	}
	r.Timestamps = has("writer-0.10.java") || has("writer-0.11.java")
	r.Headers = has("writer-0.11.java")
	if has("admin-2.8.java") {
		r.Codecs = codecs
	}
	if v.codecs != nil {
		r.Codecs = v.codecs
	}
	return r
}

// slf4jSimple logs to standard error. It is declared before the clients, so
// that all of them get its version of the API.
const slf4jSimple = "org.slf4j:slf4j-simple:1.7.36"

func (v javaClient) install(ctx context.Context, t *Tools) (Program, error) {
	artifacts := v.artifacts
	if artifacts == nil {
		artifacts = []string{"org.apache.kafka:kafka-clients:" + v.version}
	}
	name := v.row().Name
	classPath, err := t.Maven(ctx, "zoo-"+name, append([]string{slf4jSimple}, artifacts...), []string{
		"org.slf4j:slf4j-log4j12", "com.sun.jdmk:jmxtools", "com.sun.jmx:jmxri", "javax.jms:jms",
	})
	if err != nil {
		return Program{}, err
	}
	sources := []string{t.Source("java-clients", "Main.java")}
	for _, s := range v.sources {
		sources = append(sources, t.Source("java-clients", s))
	}
	classes, err := t.Javac(ctx, name, classPath, sources...)
	if err != nil {
		return Program{}, err
	}
	args := slices.Concat([]string{"java"}, peer.QuickJVM, v.jvm, []string{"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", classes + string(filepath.ListSeparator) + classPath, "Main"}, v.checks)
	return Program{Args: args}, nil
}

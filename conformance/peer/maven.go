package peer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// A JarSet is a class path that Maven resolves from coordinates.
type JarSet struct {
	Name      string   // folder below the cache
	Imports   []string // group:artifact:version of poms that manage versions, the first first
	Artifacts []string // group:artifact:version, or group:artifact where an import has the version
	Excluded  []string // group:artifact, dropped wherever they would come in
}

// The sets this suite runs. Versions are pinned: a result names what it was
// measured against.
var (
	// KafkaServer is the broker. The 4.4.0 tools API is not published, and the
	// broker runs without it.
	KafkaServer = JarSet{
		Name: "kafka-4.4.0",
		Artifacts: []string{
			"org.apache.kafka:kafka_2.13:4.4.0",
			"org.apache.kafka:kafka-server:4.4.0",
			"org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
			"org.apache.logging.log4j:log4j-core:2.25.3",
			"org.apache.logging.log4j:log4j-1.2-api:2.25.3",
		},
		Excluded: []string{"org.apache.kafka:kafka-tools-api"},
	}
	// Tools4 and Tools3 hold the command line tools of two generations. The
	// core artifact is among them because kafka-configs, and in 3.9 also
	// kafka-console-producer and kafka-broker-api-versions, live there.
	Tools4 = JarSet{
		Name: "tools-4.3.1",
		Artifacts: []string{
			"org.apache.kafka:kafka-tools:4.3.1",
			"org.apache.kafka:kafka-clients:4.3.1",
			"org.apache.kafka:kafka_2.13:4.3.1",
			"org.slf4j:slf4j-simple:1.7.36",
		},
		Excluded: []string{"org.apache.logging.log4j:log4j-slf4j-impl"},
	}
	Tools3 = JarSet{
		Name: "tools-3.9.1",
		Artifacts: []string{
			"org.apache.kafka:kafka-tools:3.9.1",
			"org.apache.kafka:kafka-clients:3.9.1",
			"org.apache.kafka:kafka_2.13:3.9.1",
			"org.slf4j:slf4j-simple:1.7.36",
		},
		Excluded: []string{"org.slf4j:slf4j-reload4j"},
	}
	// Bookies is Apache BookKeeper with the metadata drivers of Apache Pulsar, the
	// newest pair of which the second is built on the first. Pulsar's versions
	// count, so that there is one Netty, one SLF4J and one RocksDB.
	Bookies = JarSet{
		Name:    "bookkeeper-4.17.3",
		Imports: []string{"org.apache.pulsar:pulsar:4.2.4"},
		Artifacts: []string{
			"org.apache.bookkeeper:bookkeeper-server:4.17.3",
			"org.apache.pulsar:pulsar-metadata:4.2.4",
			"org.apache.logging.log4j:log4j-slf4j2-impl",
			"org.apache.logging.log4j:log4j-core",
			"org.bouncycastle:bcprov-jdk18on", // a bookie's TLS asks for it, and its pom does not
		},
		Excluded: []string{"org.apache.logging.log4j:log4j-slf4j-impl"},
	}
)

// JarSets lists every set, for fetching them all.
var JarSets = []JarSet{KafkaServer, Tools4, Tools3, Bookies}

const copyDependencies = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

// Fetch resolves the set into the cache unless it is there already, and
// returns the class path ("folder/*"). The folder is keyed by the
// coordinates, so a changed version is never mixed with an older download.
// Safe to call from several processes at once.
func (s JarSet) Fetch(ctx context.Context) (classPath string, err error) {
	work, err := WorkDir()
	if err != nil {
		return "", err
	}
	pom := s.pom()
	sum := sha256.Sum256(pom)
	dir := filepath.Join(work, "maven", s.Name+"-"+hex.EncodeToString(sum[:4]))
	lib := filepath.Join(dir, "lib")
	if exists(lib) {
		return filepath.Join(lib, "*"), nil
	}
	if err := needJava(ctx); err != nil {
		return "", err
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("%w: mvn: install Apache Maven (Debian: apt-get install maven)", ErrMissingTool)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(lib) {
		return filepath.Join(lib, "*"), nil
	}
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), pom, 0o644); err != nil {
		return "", err
	}
	// The folder gets its final name only when complete: an interrupted
	// download is started again.
	part := lib + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, mvn, "-B", "-q", copyDependencies, "-DincludeScope=runtime", "-DoutputDirectory="+part)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch %s through Maven: %w\n%s", s.Name, err, lastLines(out, 15))
	}
	if err := os.Rename(part, lib); err != nil {
		return "", err
	}
	return filepath.Join(lib, "*"), nil
}

func (s JarSet) pom() []byte {
	var b strings.Builder
	b.WriteString("<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\n" +
		"<groupId>quire.conformance</groupId><artifactId>" + s.Name + "</artifactId><version>1</version>\n")
	if len(s.Imports) > 0 {
		b.WriteString("<dependencyManagement><dependencies>\n")
		for _, i := range s.Imports {
			b.WriteString("<dependency>" + coordinates(i) + "<type>pom</type><scope>import</scope></dependency>\n")
		}
		b.WriteString("</dependencies></dependencyManagement>\n")
	}
	b.WriteString("<dependencies>\n")
	for _, a := range s.Artifacts {
		b.WriteString("<dependency>" + coordinates(a) + "<exclusions>")
		for _, x := range s.Excluded {
			b.WriteString("<exclusion>" + coordinates(x) + "</exclusion>")
		}
		b.WriteString("</exclusions></dependency>\n")
	}
	b.WriteString("</dependencies></project>\n")
	return []byte(b.String())
}

// coordinates writes group:artifact or group:artifact:version as a pom does.
func coordinates(artifact string) string {
	var b strings.Builder
	for i, c := range strings.Split(artifact, ":") {
		name := []string{"groupId", "artifactId", "version"}[i]
		b.WriteString("<" + name + ">" + c + "</" + name + ">")
	}
	return b.String()
}

// javaMajorMin is what the newest broker's class files need.
const javaMajorMin = 17

func needJava(ctx context.Context) error {
	java, err := exec.LookPath("java")
	if err != nil {
		return fmt.Errorf("%w: java: install a JDK or JRE %d or later (Debian: apt-get install default-jdk-headless)", ErrMissingTool, javaMajorMin)
	}
	out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("java -version: %w\n%s", err, out)
	}
	_, rest, ok := strings.Cut(string(out), "version \"")
	if !ok {
		return errors.New("java -version: no version in its output: " + string(out))
	}
	major, _, _ := strings.Cut(rest, ".")
	major, _, _ = strings.Cut(major, "\"")
	n, err := strconv.Atoi(major)
	if err != nil || n < javaMajorMin {
		return fmt.Errorf("%w: java %d or later (found version %s)", ErrMissingTool, javaMajorMin, major)
	}
	return nil
}

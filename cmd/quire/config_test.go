package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "quire.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestCatalog holds what the code takes for granted of every row.
func TestCatalog(t *testing.T) {
	names, envs := map[string]bool{}, map[string]bool{}
	for i := range catalog {
		k := &catalog[i]
		if !regexp.MustCompile(`^[a-z0-9]+(\.[a-z0-9]+)*$`).MatchString(k.Name) {
			t.Errorf("%s: not a name in lower case with dots", k.Name)
		}
		if names[k.Name] || envs[envName(k.Name)] {
			t.Errorf("%s is there twice", k.Name)
		}
		names[k.Name], envs[envName(k.Name)] = true, true
		if serviceLinks.MatchString(envName(k.Name)) || foreignEnv.MatchString(envName(k.Name)) {
			t.Errorf("%s: its environment variable is taken", k.Name)
		}
		if err := k.check(k.Default); err != nil {
			t.Errorf("%s: its default %v", k.Name, err)
		}
		if !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: its documentation is no sentence", k.Name)
		}
		if (k.Kind == kindInt || k.Kind == kindShort || k.Kind == kindLong) && k.Min >= k.Max && k.Check == nil {
			t.Errorf("%s has no bounds", k.Name)
		}
		if k.Kind == kindShort && (k.Max > math.MaxInt16 || k.Min < math.MinInt16) {
			t.Errorf("%s: bounds beyond its type", k.Name)
		}
		if k.Kind == kindInt && (k.Max > maxInt32 && !k.Ours || k.Min < -1<<31) {
			t.Errorf("%s: bounds beyond its type", k.Name)
		}
		// Kafka's own keys keep Kafka's names; a number of ours says its unit.
		if unit := regexp.MustCompile(`\.(bytes|ms)$`); k.Ours && k.Kind == kindLong && !unit.MatchString(k.Name) {
			t.Errorf("%s: a quantity without its unit in the name", k.Name)
		}
	}
}

// TestGroupKeys: bounds of groups' timeouts that are set are held, those that are
// not keep nobody away; assignors are the two that there are.
func TestGroupKeys(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"group.consumer.session.timeout.ms: 6000\n", ""},
		{"group.consumer.session.timeout.ms: 6000\ngroup.consumer.min.session.timeout.ms: 6000\n", ""},
		{"group.consumer.session.timeout.ms: 5999\ngroup.consumer.min.session.timeout.ms: 6000\n", "group.consumer.min.session.timeout.ms is 6000 and group.consumer.session.timeout.ms is 5999"},
		{"group.consumer.max.heartbeat.interval.ms: 4000\n", "group.consumer.max.heartbeat.interval.ms is 4000 and group.consumer.heartbeat.interval.ms is 5000"},
		{"group.consumer.assignors: [range]\n", ""},
		{"group.consumer.assignors: [range, sticky]\n", `must be of uniform and range, not "sticky"`},
		{"group.consumer.assignors: [range, range]\n", "must have range once"},
		{"group.consumer.assignors: \",\"\n", "must have one"},
	} {
		_, err := loadConfig(writeFile(t, c.file), nil, nil)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.file, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q: %v, want %q", c.file, err, c.want)
		}
	}
}

func TestLaterSourcesWin(t *testing.T) {
	file := writeFile(t, "num.partitions: 2\nmessage.max.bytes: 2000\nfetch.max.bytes: 2000\n")
	env := []string{"QUIRE_MESSAGE_MAX_BYTES=3000", "QUIRE_FETCH_MAX_BYTES=3000", "HOME=/"}
	c, err := loadConfig(file, env, []override{{"fetch.max.bytes", "4000", "--override"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]setting{
		"log.segment.bytes": {"1073741824", fromDefault, ""},
		"num.partitions":    {"2", fromFile, file + ":1"},
		"message.max.bytes": {"3000", fromEnv, "environment QUIRE_MESSAGE_MAX_BYTES"},
		"fetch.max.bytes":   {"4000", fromFlag, "--override"},
	} {
		if got := c.get(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestFileForms(t *testing.T) {
	c, err := loadConfig(writeFile(t, `
# dots, nesting and lists mean the same
log:
  retention: {ms: 1000}
  segment.bytes: 2000
listeners:
  - PLAINTEXT://127.0.0.1:1
  - LOCAL:///run/quire.sock
listener.security.protocol.map: "LOCAL:PLAINTEXT"
auto.create.topics.enable: False
broker.rack: 007
`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"log.retention.ms":          "1000",
		"log.segment.bytes":         "2000",
		"listeners":                 "PLAINTEXT://127.0.0.1:1,LOCAL:///run/quire.sock",
		"auto.create.topics.enable": "false",
		"broker.rack":               "007",
	} {
		if got := c.str(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestEmptyFile(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		if _, err := loadConfig(writeFile(t, text), nil, nil); err != nil && text != "---\n" {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestRefused: every mistake is one line that names the place, the key and a way out.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		file string
		env  []string
		over []override
		want []string
	}{
		{file: "num.partitons: 3", want: []string{"quire.yaml:1:", "num.partitons", "did you mean num.partitions?"}},
		{file: "\nlog:\n  retention:\n    mss: 3", want: []string{"quire.yaml:4:", "log.retention.mss", "log.retention.ms?"}},
		{file: "lag:\n  retention:\n    ms: 3", want: []string{"quire.yaml:1:", "unknown key lag"}},
		{file: "num.partitions: many", want: []string{"quire.yaml:1:", "num.partitions must be a whole number", `"many"`}},
		{file: "num.partitions: 0", want: []string{"between 1 and 2147483647, not 0"}},
		{file: "num.partitions: 99999999999999999999", want: []string{"num.partitions"}},
		{file: "num.partitions: 1\nnum:\n  partitions: 2", want: []string{"quire.yaml:3:", "set twice, first on line 1"}},
		{file: "num.partitions: 1\nnum.partitions: 2", want: []string{"num.partitions"}},
		{file: "num.partitions:", want: []string{"num.partitions has no value"}},
		{file: "num.partitions: {a: 1}", want: []string{"num.partitions must be a plain value"}},
		{file: "- 1", want: []string{"quire.yaml:1:", "key: value"}},
		{file: "a: [", want: []string{"is not YAML"}},
		{file: "delete.topic.enable: yes please", want: []string{"must be true or false"}},
		{file: "log.level: loud", want: []string{"must be one of debug, info"}},
		{file: "compression.type: brotli", want: []string{"quire.yaml:1:", "compression.type", "one of uncompressed"}},
		{file: "log.cleanup.policy: shred", want: []string{"log.cleanup.policy", "list of delete, compact"}},
		{file: "log.roll.hours: 0", want: []string{"log.roll.hours", "too small"}},
		{file: "log.cleaner.min.cleanable.ratio: NaN", want: []string{"a number from 0 to 1"}},
		{file: "log.dirs: /var/lib/kafka", want: []string{"here it is data.dir"}},
		{file: "zookeeper.connect: z:2181", want: []string{"no use for it"}},
		{file: "inter.broker.protocol.version: 4.0", want: []string{"is fixed"}},
		{file: "listeners: 127.0.0.1:9092", want: []string{"not NAME://host:port"}},
		{file: "listeners: PLAINTEXT://:99999", want: []string{"0 to 65535"}},
		{file: "listeners: A://:1,a://:2", want: []string{"two listeners are called A"}},
		{file: "listeners: PLAINTEXT://h:1,UNIX://h:1", want: []string{"both at h:1"}},
		{file: "listeners: SASL_SSL://:9092", want: []string{"SASL_SSL is not served yet"}},
		{file: "listeners: INSIDE://:9092", want: []string{"add INSIDE:PLAINTEXT or INSIDE:SSL to listener.security.protocol.map"}},
		{file: "listener.security.protocol.map: INSIDE:SASL_SSL", want: []string{"SASL_SSL is not served yet"}},
		{file: "listeners: SSL://:9093", want: []string{"SSL has TLS and no certificate", "ssl.keystore.location"}},
		{file: "listeners: OUT://:9093\nlistener.security.protocol.map: OUT:SSL", want: []string{"OUT has TLS and no certificate"}},
		{file: "ssl.keystore.type: JKS", want: []string{"must be one of PEM"}},
		{file: "ssl.keystore.password: secret", want: []string{"no use for it"}},
		{file: "ssl.keystore.location: a\nssl.key.file: b", want: []string{"remove ssl.certificate.file and ssl.key.file"}},
		{file: "ssl.key.file: b", want: []string{"set it and ssl.key.file, or neither"}},
		{file: "ssl.client.auth: required", want: []string{"required needs ssl.truststore.location"}},
		{file: "ssl.enabled.protocols: SSLv3", want: []string{"must be of TLSv1"}},
		{file: "ssl.enabled.protocols: TLSv1.1,TLSv1.3", want: []string{"follow each other"}},
		{file: "listener.proxy.protocol: OUTSIDE", want: []string{"OUTSIDE is not in listeners"}},
		{file: "proxy.protocol.trusted.networks: haproxy.local", want: []string{"neither a network (10.0.0.0/8) nor an address"}},
		{file: "proxy.protocol.trusted.networks: 10.0.0.0/33", want: []string{"neither a network"}},
		{file: "proxy.protocol.trusted.networks: '::ffff:10.0.0.0/104'", want: []string{"write it as IPv4"}},
		{file: "proxy.protocol.trusted.networks: ''", want: []string{"must not be empty"}},
		{file: "advertised.listeners: PLAINTEXT://0.0.0.0:9092", want: []string{"no address that clients can reach"}},
		{file: "advertised.listeners: PLAINTEXT://:9092", want: []string{"needs a host"}},
		{file: "advertised.listeners: OUTSIDE://h:9092", want: []string{"OUTSIDE is not in listeners"}},
		{file: "advertised.listeners: 'PLAINTEXT://h:${node.port}'", want: []string{`"${node.port}" is no pattern`, "${node.id+9100}"}},
		{file: "advertised.listeners: 'PLAINTEXT://h:${node.id'", want: []string{`"${node.id" is no pattern`}},
		{file: "advertised.listeners: 'PLAINTEXT://h:${node.id+65535}'", want: []string{"0 to 65535"}},
		{file: "listener.advertise: PLAINTEXT", want: []string{"not NAME:node or NAME:proxy"}},
		{file: "listener.advertise: PLAINTEXT:vip", want: []string{"not NAME:node or NAME:proxy"}},
		{file: "listener.advertise: PLAINTEXT:node,plaintext:proxy", want: []string{"names PLAINTEXT twice"}},
		{file: "listener.advertise: OUTSIDE:proxy", want: []string{"OUTSIDE is not in listeners"}},
		{file: "admin.listen: 9644", want: []string{"admin.listen", "not host:port"}},
		{env: []string{"QUIRE_NUM_PARTITION=3"}, want: []string{"environment", "QUIRE_NUM_PARTITION", "did you mean QUIRE_NUM_PARTITIONS?"}},
		{env: []string{"QUIRE_NUM_PARTITIONS="}, want: []string{"environment QUIRE_NUM_PARTITIONS", "must not be empty"}},
		{over: []override{{"num.partition", "1", "--override"}}, want: []string{"--override", "did you mean num.partitions?"}},
	} {
		file := ""
		if c.file != "" {
			file = writeFile(t, c.file)
		}
		_, err := loadConfig(file, c.env, c.over)
		if err == nil {
			t.Errorf("%q %v %v: accepted", c.file, c.env, c.over)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q %v %v: %q does not say %q in one line", c.file, c.env, c.over, err, want)
			}
		}
	}
}

// TestServiceLinks: in Kubernetes a Service called quire puts these into every pod.
func TestServiceLinks(t *testing.T) {
	env := []string{
		"QUIRE_SERVICE_HOST=10.0.0.1", "QUIRE_SERVICE_PORT=9092", "QUIRE_SERVICE_PORT_KAFKA=9092", "QUIRE_PORT=tcp://10.0.0.1:9092",
		"QUIRE_PORT_9092_TCP=tcp://10.0.0.1:9092", "QUIRE_PORT_9092_TCP_ADDR=10.0.0.1", "QUIRE_HEADLESS_SERVICE_HOST=10.0.0.2",
	}
	if _, err := loadConfig("", env, nil); err != nil {
		t.Error(err)
	}
}

func TestRetentionUnits(t *testing.T) {
	for _, c := range []struct {
		set  string
		want string
	}{
		{"log.retention.hours: 2", "7200000"},
		{"log.retention.hours: 2\nlog.retention.minutes: 3", "180000"},
		{"log.retention.hours: 2\nlog.retention.minutes: 3\nlog.retention.ms: 4", "4"},
		{"log.retention.minutes: -1", "-1"},
		{"log.retention.hours: 2147483647", strconv.FormatInt(2147483647*time.Hour.Milliseconds(), 10)},
	} {
		cfg, err := loadConfig(writeFile(t, c.set), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := cfg.topicDefaults(); err != nil || got["retention.ms"] != c.want {
			t.Errorf("%q: retention.ms %q, %v; want %q", c.set, got["retention.ms"], err, c.want)
		}
	}
}

func TestTopicDefaultsAreOnlyWhatWasSet(t *testing.T) {
	c, err := loadConfig("", []string{"QUIRE_LOG_ROLL_HOURS=1", "QUIRE_MESSAGE_MAX_BYTES=5", "QUIRE_NUM_PARTITIONS=5"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.topicDefaults()
	if err != nil || len(got) != 2 || got["segment.ms"] != "3600000" || got["max.message.bytes"] != "5" {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestPrintedConfigReadsBack: both forms of config print are files that load to
// the same values.
func TestPrintedConfigReadsBack(t *testing.T) {
	env := []string{"QUIRE_BROKER_RACK=a: #b", "QUIRE_LISTENERS=PLAINTEXT://127.0.0.1:1,UNIX:///x y", "QUIRE_DATA_DIR='q\"", "QUIRE_NUM_PARTITIONS=007"}
	c, err := loadConfig("", env, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, effective := range []bool{false, true} {
		var b bytes.Buffer
		if err := c.print(&b, effective); err != nil {
			t.Fatal(err)
		}
		back, err := loadConfig(writeFile(t, b.String()), nil, nil)
		if err != nil {
			t.Fatalf("effective %v: %v\n%s", effective, err, b.String())
		}
		for i := range catalog {
			k := &catalog[i]
			if got, want := back.effective(k.Name), c.effective(k.Name); got != want {
				t.Errorf("effective %v: %s is %q, want %q", effective, k.Name, got, want)
			}
		}
	}
	// The commented form names every key, so that it is the documentation.
	var b bytes.Buffer
	if err := c.print(&b, false); err != nil {
		t.Fatal(err)
	}
	for i := range catalog {
		if k := &catalog[i]; !k.Fixed && !strings.Contains(b.String(), k.Name+": ") {
			t.Errorf("config print leaves %s out", k.Name)
		}
	}
}

func TestMillis(t *testing.T) {
	c, err := loadConfig("", []string{"QUIRE_CONNECTIONS_MAX_IDLE_MS=9223372036854775807", "QUIRE_LEDGER_IDLE_CLOSE_MS=1500"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.millis("connections.max.idle.ms"); got != maxInt64 {
		t.Errorf("overflow gives %d", got)
	}
	if got := c.millis("ledger.idle.close.ms"); got != 1500*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAdvertised(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		listeners, advertised string
		want                  map[string]string // by listener name
	}{
		{"PLAINTEXT://127.0.0.1:9092", "", map[string]string{"PLAINTEXT": "127.0.0.1:9092"}},
		{"PLAINTEXT://:9092", "", map[string]string{"PLAINTEXT": host + ":9092"}},
		{"PLAINTEXT://[::]:9092", "", map[string]string{"PLAINTEXT": host + ":9092"}},
		{"PLAINTEXT://[::1]:9092", "", map[string]string{"PLAINTEXT": "[::1]:9092"}},
		{"PLAINTEXT://:9092,UNIX:///x", "PLAINTEXT://kafka.example:1", map[string]string{"PLAINTEXT": "kafka.example:1", "UNIX": "kafka.example:1"}},
		{"UNIX:///x", "UNIX://kafka.example:1", map[string]string{"UNIX": "kafka.example:1"}},
		{"UNIX:///x", "", nil},
		{"PLAINTEXT://:9092", "PLAINTEXT://kafka.example:${node.id+9100}", map[string]string{"PLAINTEXT": "kafka.example:9117"}},
		{"PLAINTEXT://:9092", "PLAINTEXT://n${node.id}.${node.name}.example:9093", map[string]string{"PLAINTEXT": "n17.red.example:9093"}},
		{"PLAINTEXT://:9092", "PLAINTEXT://h:${node.id+65530}", nil},
	} {
		cfg, err := loadConfig("", []string{"QUIRE_LISTENERS=" + c.listeners, "QUIRE_ADVERTISED_LISTENERS=" + c.advertised}, nil)
		if err != nil {
			t.Fatal(err)
		}
		bound, err := parseListeners(cfg.str("listeners"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := advertised(cfg, bound, 17, "red")
		if (err != nil) != (c.want == nil) || len(got) != len(c.want) {
			t.Errorf("%s, %s: %v, %v", c.listeners, c.advertised, got, err)
			continue
		}
		for name, address := range c.want {
			if got[name].Address() != address {
				t.Errorf("%s, %s: %s is told %s, want %s", c.listeners, c.advertised, name, got[name].Address(), address)
			}
		}
	}
}

func TestUnreadableFile(t *testing.T) {
	for _, file := range []string{filepath.Join(t.TempDir(), "absent.yaml"), t.TempDir()} {
		_, err := loadConfig(file, nil, nil)
		if err == nil || !strings.Contains(err.Error(), file+" cannot be read: ") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add("num.partitions: 3\nlog: {retention: {ms: 1}}\n")
	f.Add("listeners: [PLAINTEXT://:1, UNIX:///x]\n")
	f.Add("a: &a [*a]\n? [x]\n: y")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := loadConfig(writeFile(t, text), nil, nil)
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("error of two lines: %q", err)
		}
	})
}

// Command kcat is the zoo's program for Debian's kcat, which it runs once per
// call: librdkafka as shell scripts use it. ZOO_VERSION turns the question for
// the broker's versions off and names the one to speak instead
// (broker.version.fallback).
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/quirelog/quire/conformance/clients/goclient"
)

func main() {
	c := goclient.Client{Produce: produce, Consume: consume, Checks: checks[:1]}
	if goclient.Version() != "0.8.2.2" {
		c.Group = group
	}
	if goclient.Version() == "" {
		c.OffsetAt, c.Checks = offsetAt, checks
	}
	goclient.Main(c)
}

// kcat runs it with the server's address and returns both outputs.
func kcat(ctx context.Context, stdin []byte, args ...string) (out, log string, err error) {
	all := []string{"-b", goclient.Bootstrap()}
	if v := goclient.Version(); v != "" {
		all = append(all, "-X", "api.version.request=false", "-X", "broker.version.fallback="+v)
	}
	cmd := exec.CommandContext(ctx, "kcat", append(all, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(stderr.String())
		return stdout.String(), text, fmt.Errorf("kcat %s: %w: %s", args[0], err, text[max(0, len(text)-300):])
	}
	return stdout.String(), stderr.String(), nil
}

// What comes between the fields on kcat's standard input; no canonical record
// has these bytes.
const (
	afterKey   = "<key>"
	afterValue = "<end>"
)

func produce(ctx context.Context, topic string, partition int32, codec string, records []goclient.Record) error {
	return produceWith(ctx, topic, partition, codec, records)
}

// produceWith runs kcat once for as many records as share a meaning of "no
// value": null with -Z, empty without.
func produceWith(ctx context.Context, topic string, partition int32, codec string, records []goclient.Record, options ...string) error {
	args := append([]string{"-P", "-t", topic, "-p", fmt.Sprint(partition), "-z", codec,
		"-K", afterKey, "-D", afterValue, "-X", "linger.ms=100", "-X", "acks=all"}, options...)
	var in bytes.Buffer
	for i, r := range records {
		if r.Key != nil {
			in.Write(r.Key)
			in.WriteString(afterKey)
		}
		in.Write(r.Value)
		in.WriteString(afterValue)
		isEmpty := func(r goclient.Record) bool { return r.Value != nil && len(r.Value) == 0 }
		if i+1 < len(records) && isEmpty(records[i+1]) == isEmpty(r) {
			continue
		}
		run := args
		if !isEmpty(r) {
			run = append(args[:len(args):len(args)], "-Z")
		}
		if _, _, err := kcat(ctx, in.Bytes(), run...); err != nil {
			return err
		}
		in.Reset()
	}
	return nil
}

// recordFormat has the lengths before the bytes, so that nothing in a key or
// value can be taken for a separator.
const recordFormat = `%T %K %S\n%k%s\n`

func parse(out string) (records []goclient.Record, err error) {
	for out != "" {
		line, rest, _ := strings.Cut(out, "\n")
		var r goclient.Record
		var key, value int
		if _, err := fmt.Sscanf(line, "%d %d %d", &r.Millis, &key, &value); err != nil {
			return records, fmt.Errorf("line %.60q: %w", line, err)
		}
		if max(key, 0)+max(value, 0) >= len(rest) {
			return records, fmt.Errorf("the output ends within a record: %.60q", line)
		}
		take := func(n int) []byte { // -1 for null
			if n < 0 {
				return nil
			}
			b := []byte(rest[:n])
			rest = rest[n:]
			return b
		}
		r.Key, r.Value = take(key), take(value)
		records = append(records, r)
		out = strings.TrimPrefix(rest, "\n")
	}
	return records, nil
}

func consume(ctx context.Context, topic string) ([]goclient.Record, error) {
	out, _, err := kcat(ctx, nil, "-C", "-q", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-f", recordFormat)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

// group commits what it read when it leaves, which is kcat's way.
func group(ctx context.Context, group, topic string, count int) ([]goclient.Record, error) {
	out, _, err := kcat(ctx, nil, "-G", group, "-q", "-X", "auto.offset.reset=earliest", "-c", fmt.Sprint(count), "-f", recordFormat, topic)
	if err != nil {
		return nil, err
	}
	return parse(out)
}

func offsetAt(ctx context.Context, topic string, millis int64) (offset int64, err error) {
	out, _, err := kcat(ctx, nil, "-Q", "-t", fmt.Sprintf("%s:0:%d", topic, millis))
	if err != nil {
		return 0, err
	}
	_, last, _ := strings.Cut(out, " offset ")
	_, err = fmt.Sscan(last, &offset)
	return offset, err
}

// checks: the first needs no version negotiation.
var checks = []goclient.Check{
	{Name: "metadata", Run: func(ctx context.Context, env goclient.Env) error {
		out, _, err := kcat(ctx, nil, "-L")
		if err == nil && !strings.Contains(out, fmt.Sprintf("topic %q with 1 partitions", env.Topic)) {
			return fmt.Errorf("%s is not among the topics", env.Topic)
		}
		return err
	}},
	{Name: "features", Run: func(ctx context.Context, env goclient.Env) error {
		_, log, err := kcat(ctx, nil, "-L", "-t", env.Topic, "-X", "debug=feature")
		if err != nil {
			return err
		}
		on := strings.Count(log, "Enabling feature ")
		for off := range strings.Lines(log) {
			if strings.Contains(off, "Disabling feature ") {
				return errors.New(strings.TrimSpace(off))
			}
		}
		if on == 0 {
			return errors.New("no feature is on")
		}
		return nil
	}},
	{Name: "idempotent", Run: func(ctx context.Context, env goclient.Env) error {
		if err := produceWith(ctx, env.Fresh, 0, "none", goclient.Canonical(), "-X", "enable.idempotence=true"); err != nil {
			return err
		}
		got, err := consume(ctx, env.Fresh)
		if err == nil && len(got) != len(goclient.Canonical()) {
			return fmt.Errorf("%d records read", len(got))
		}
		return err
	}},
}

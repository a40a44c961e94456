package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/quirelog/quire/coordinator"
)

// source says where a value comes from.
type source int8

const (
	fromDefault source = iota
	fromFile
	fromEnv
	fromFlag
)

// setting is the value of one key.
type setting struct {
	Value  string
	Source source
	Where  string // the file and line, variable or flag, for people
}

// config holds a value for every key of the catalog. It is immutable after load.
type config struct {
	values map[string]setting
	File   string // "" if there is none
}

// override is one key=value from the command line; Flag names it for people.
type override struct {
	Key, Value, Flag string
}

// maxConfigBytes bounds the configuration file.
const maxConfigBytes = 1 << 20

// loadConfig puts the file (if any), the environment (as os.Environ gives it)
// and the command line over the defaults; the later wins. Every error is one
// line that names the place and the key.
func loadConfig(file string, environ []string, overrides []override) (*config, error) {
	c := &config{values: make(map[string]setting, len(catalog)), File: file}
	for i := range catalog {
		c.values[catalog[i].Name] = setting{Value: catalog[i].Default}
	}
	if file != "" {
		if err := c.readFile(file); err != nil {
			return nil, err
		}
	}
	if err := c.readEnv(environ); err != nil {
		return nil, err
	}
	for _, o := range overrides {
		if err := c.set(o.Key, o.Value, fromFlag, o.Flag); err != nil {
			return nil, err
		}
	}
	if err := checkListenerSet(c); err != nil {
		return nil, err
	}
	if err := checkTLSSet(c); err != nil {
		return nil, err
	}
	if err := checkEtcdSet(c); err != nil {
		return nil, err
	}
	if err := checkTierSet(c); err != nil {
		return nil, err
	}
	if err := checkPeerSet(c); err != nil {
		return nil, err
	}
	if err := checkGroupBounds(c); err != nil {
		return nil, err
	}
	return c, nil
}

// checkGroupBounds holds timeouts of groups to the bounds that somebody has set.
// The default bounds are what tools are told, and keep nobody from a shorter timeout.
func checkGroupBounds(c *config) error {
	for _, name := range []string{"session.timeout.ms", "heartbeat.interval.ms"} {
		key := "group.consumer." + name
		lowest, highest := "group.consumer.min."+name, "group.consumer.max."+name
		switch n := c.number(key); {
		case c.isSet(lowest) && n < c.number(lowest):
			return fmt.Errorf("%s: %s is %d and %s is %d", c.get(lowest).Where, lowest, c.number(lowest), key, n)
		case c.isSet(highest) && n > c.number(highest):
			return fmt.Errorf("%s: %s is %d and %s is %d", c.get(highest).Where, highest, c.number(highest), key, n)
		}
	}
	return nil
}

// set checks and stores one value.
func (c *config) set(name, value string, from source, where string) error {
	k := catalogByName[name]
	if k == nil {
		return fmt.Errorf("%s: %w", where, errUnknownKey(name))
	}
	value = strings.TrimSpace(value)
	if k.Kind == kindBool {
		value = strings.ToLower(value)
	}
	if err := k.check(value); err != nil {
		return fmt.Errorf("%s: %s %w", where, name, err)
	}
	c.values[name] = setting{Value: value, Source: from, Where: where}
	return nil
}

func (c *config) readFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("config file %s cannot be read: %w", file, unwrapPath(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return fmt.Errorf("config file %s cannot be read: %w", file, unwrapPath(err))
	}
	if len(text) > maxConfigBytes {
		return fmt.Errorf("config file %s is larger than %d bytes", file, maxConfigBytes)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return fmt.Errorf("config file %s is not YAML: %s", file, oneLine(strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	if len(root.Content) == 0 {
		return nil // empty, or comments only
	}
	return c.readNode(file, "", root.Content[0], map[string]int{}, 0)
}

// readNode reads a mapping. Keys may be written with dots, as in Kafka's
// properties, or nested; both mean the same.
func (c *config) readNode(file, prefix string, n *yaml.Node, lines map[string]int, depth int) error {
	const maxDepth = 16
	at := func(n *yaml.Node) string { return file + ":" + strconv.Itoa(n.Line) }
	if n.Kind != yaml.MappingNode || depth > maxDepth {
		return fmt.Errorf("%s: expected lines of the form key: value", at(n))
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.Value == "" {
			return fmt.Errorf("%s: expected lines of the form key: value", at(k))
		}
		name := k.Value
		if prefix != "" {
			name = prefix + "." + name
		}
		if v.Kind == yaml.MappingNode && catalogByName[name] == nil {
			if !isKeyPrefix(name) {
				return fmt.Errorf("%s: %w", at(k), errUnknownKey(name))
			}
			if err := c.readNode(file, name, v, lines, depth+1); err != nil {
				return err
			}
			continue
		}
		if first, ok := lines[name]; ok {
			return fmt.Errorf("%s: %s is set twice, first on line %d", at(k), name, first)
		}
		lines[name] = k.Line
		value, err := scalarOrList(v)
		if err != nil && catalogByName[name] != nil {
			return fmt.Errorf("%s: %s %w", at(v), name, err)
		}
		if err := c.set(name, value, fromFile, at(k)); err != nil {
			return err
		}
	}
	return nil
}

func isKeyPrefix(name string) bool {
	return slices.ContainsFunc(catalog, func(k key) bool { return strings.HasPrefix(k.Name, name+".") })
}

func scalarOrList(n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return "", errors.New("has no value")
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	case n.Kind == yaml.SequenceNode:
		var parts []string
		for _, e := range n.Content {
			if e.Kind != yaml.ScalarNode {
				return "", errors.New("must be a list of plain values")
			}
			parts = append(parts, e.Value)
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("must be a plain value or a list of them")
}

// serviceLinks matches the variables that Kubernetes sets in every pod beside a
// Service called quire. They are not ours, however much they look it.
var serviceLinks = regexp.MustCompile(`^QUIRE_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// foreignEnv matches variables with our prefix that are no keys: those that flags
// of single verbs read, and those of the conformance suite.
var foreignEnv = regexp.MustCompile(`^QUIRE_(CONFIG|BOOTSTRAP_SERVER|BIN|CONFORMANCE_.*)$`)

const (
	configEnv    = "QUIRE_CONFIG"
	bootstrapEnv = "QUIRE_BOOTSTRAP_SERVER"
)

func (c *config) readEnv(environ []string) error {
	byEnv := make(map[string]string, len(catalog))
	for i := range catalog {
		byEnv[envName(catalog[i].Name)] = catalog[i].Name
	}
	environ = slices.Clone(environ)
	slices.Sort(environ) // so that the first error is always the same one
	for _, e := range environ {
		variable, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(variable, envPrefix) || foreignEnv.MatchString(variable) {
			continue
		}
		name, ok := byEnv[variable]
		if !ok {
			if serviceLinks.MatchString(variable) {
				continue
			}
			meant := nearestKey(strings.ReplaceAll(strings.TrimPrefix(variable, envPrefix), "_", "."))
			return fmt.Errorf("environment: unknown variable %s: did you mean %s?", variable, envName(meant))
		}
		if err := c.set(name, value, fromEnv, "environment "+variable); err != nil {
			return err
		}
	}
	return nil
}

// get panics on a key that is not in the catalog: that is a mistake in this package.
func (c *config) get(name string) setting {
	s, ok := c.values[name]
	if !ok {
		panic("configuration key " + name + " is not in the catalog")
	}
	return s
}

// isSet says whether anybody set the key.
func (c *config) isSet(name string) bool { return c.get(name).Source != fromDefault }

func (c *config) str(name string) string { return c.get(name).Value }

func (c *config) boolean(name string) bool { return c.get(name).Value == "true" }

// number returns the value of a key of whole numbers, which set has checked.
func (c *config) number(name string) int64 {
	n, err := strconv.ParseInt(c.get(name).Value, 10, 64)
	if err != nil {
		panic("configuration key " + name + " is not a number: " + err.Error())
	}
	return n
}

// millis returns a key in milliseconds as a duration, the longest one if it
// does not fit. A negative value is returned as -1: no limit.
func (c *config) millis(name string) time.Duration {
	n := c.number(name)
	switch {
	case n < 0:
		return -1
	case n > maxInt64/int64(time.Millisecond):
		return maxInt64
	}
	return time.Duration(n) * time.Millisecond
}

// loops is num.network.threads with 0 resolved.
func (c *config) loops() int {
	if n := c.number("num.network.threads"); n > 0 {
		return int(n)
	}
	return cores
}

// topicDefaults are the topic configs whose defaults the operator changed.
func (c *config) topicDefaults() (map[string]string, error) {
	set := map[string]string{}
	for i := range catalog {
		if name := catalog[i].Name; c.isSet(name) && c.str(name) != "" {
			set[name] = c.str(name)
		}
	}
	return coordinator.BrokerDefaults(set)
}

// effective is the value in force of a key, what is derived included.
func (c *config) effective(name string) string {
	if name == "num.network.threads" {
		return strconv.Itoa(c.loops())
	}
	return c.str(name)
}

// print writes the configuration as a file that loadConfig reads. With
// effective it is the values in force, each with the place it came from; else
// every key with its meaning, commented out where nobody set it.
func (c *config) print(w io.Writer, effective bool) error {
	var b strings.Builder
	for i := range catalog {
		k := &catalog[i]
		if k.Fixed {
			continue
		}
		s := c.get(k.Name)
		if effective {
			v := c.effective(k.Name)
			if v == "" {
				continue
			}
			if k.Secret {
				fmt.Fprintf(&b, "# %s is set and not shown", k.Name)
			} else {
				fmt.Fprintf(&b, "%s: %s", k.Name, yamlScalar(v))
			}
			if s.Where != "" {
				fmt.Fprintf(&b, "  # %s", s.Where)
			}
			b.WriteString("\n")
			continue
		}
		for _, line := range wrap(k.Doc, 98) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		mark := "#"
		value := yamlScalar(s.Value)
		switch {
		case k.Secret:
			value = ""
		case s.Source != fromDefault:
			mark = ""
		}
		fmt.Fprintf(&b, "%s%s: %s\n\n", mark, k.Name, value)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// yamlScalar writes v so that YAML reads the same characters back.
func yamlScalar(v string) string {
	out, err := yaml.Marshal(v)
	if err != nil {
		return strconv.Quote(v)
	}
	s := strings.TrimSuffix(string(out), "\n")
	if plain := strings.Trim(s, `"`); plain == v && !strings.ContainsAny(v, `: #`) && v != "" {
		return plain // numbers and booleans need no quotes: they are read as text
	}
	return s
}

// wrap breaks text at spaces into lines of at most width bytes where it can.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// oneLine joins the lines of text.
func oneLine(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n", " ")), " ")
}

// unwrapPath drops the operation and path of a file error, which the caller names.
func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

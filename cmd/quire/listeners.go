package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/quirelog/quire/proxy"
)

// listener is one element of listeners or advertised.listeners.
type listener struct {
	Name string // upper case
	Host string // empty: every interface
	Port int
	Path string // of a unix socket; Host and Port are empty then
}

// Network and Address are what net.Listen takes.
func (l listener) Network() string {
	if l.Path != "" {
		return "unix"
	}
	return "tcp"
}

func (l listener) Address() string {
	if l.Path != "" {
		return l.Path
	}
	return net.JoinHostPort(l.Host, strconv.Itoa(l.Port))
}

func (l listener) String() string {
	return l.Name + "://" + l.Address()
}

// parseListeners reads NAME://host:port and NAME:///path, separated by commas.
// Names are unique and case does not matter, as in Kafka.
func parseListeners(v string) ([]listener, error) {
	var out []listener
	seen := map[string]bool{}
	for _, s := range splitList(v) {
		name, rest, ok := strings.Cut(s, "://")
		if !ok || name == "" || rest == "" {
			return nil, fmt.Errorf("%q is not NAME://host:port", s)
		}
		l := listener{Name: strings.ToUpper(name)}
		if strings.HasPrefix(rest, "/") {
			l.Path = rest
		} else {
			host, port, err := net.SplitHostPort(rest)
			if err != nil {
				return nil, fmt.Errorf("%q is not NAME://host:port", s)
			}
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return nil, fmt.Errorf("%q: the port must be a number from 0 to 65535", s)
			}
			l.Host, l.Port = host, int(n)
		}
		if seen[l.Name] {
			return nil, fmt.Errorf("two listeners are called %s", l.Name)
		}
		seen[l.Name] = true
		out = append(out, l)
	}
	if len(out) == 0 {
		return nil, errors.New("names no listener")
	}
	return out, nil
}

func checkListeners(v string) error {
	ls, err := parseListeners(v)
	if err != nil {
		return err
	}
	at := map[string]string{}
	for _, l := range ls {
		if l.Path == "" && l.Port == 0 {
			continue
		}
		if other, ok := at[l.Address()]; ok {
			return fmt.Errorf("%s and %s are both at %s", other, l.Name, l.Address())
		}
		at[l.Address()] = l.Name
	}
	return nil
}

func checkAdvertised(v string) error {
	// What the patterns stand for is known when the node has its id.
	ls, err := parseAdvertised(v, 1, "node")
	if err != nil {
		return err
	}
	for _, l := range ls {
		switch {
		case l.Path != "":
			return fmt.Errorf("%s: clients are told of hosts and ports, not of unix sockets", l)
		case l.Host == "" || l.Port == 0:
			return fmt.Errorf("%s: needs a host and a port that clients can reach", l)
		case net.ParseIP(l.Host) != nil && net.ParseIP(l.Host).IsUnspecified():
			return fmt.Errorf("%s: %s is no address that clients can reach", l, l.Host)
		}
	}
	return nil
}

// nodePattern is what stands for the node's own in advertised.listeners:
// ${node.id}, ${node.id+9100} and ${node.name}.
var nodePattern = regexp.MustCompile(`\$\{node\.(?:(name)|id(?:\+([0-9]{1,5}))?)\}`)

// parseAdvertised is parseListeners with the patterns replaced.
func parseAdvertised(v string, id int32, name string) ([]listener, error) {
	v = nodePattern.ReplaceAllStringFunc(v, func(s string) string {
		m := nodePattern.FindStringSubmatch(s)
		if m[1] != "" {
			return name
		}
		plus, _ := strconv.Atoi(m[2]) // "" is 0
		return strconv.Itoa(int(id) + plus)
	})
	if i := strings.Index(v, "${"); i >= 0 {
		pattern := v[i:]
		if end := strings.IndexByte(pattern, '}'); end >= 0 {
			pattern = pattern[:end+1]
		}
		return nil, fmt.Errorf("%q is no pattern: there are ${node.id}, ${node.id+9100} and ${node.name}", pattern)
	}
	return parseListeners(v)
}

// checkListenerAdvertise checks listener.advertise.
func checkListenerAdvertise(v string) error {
	_, err := parseListenerAdvertise(v)
	return err
}

// What clients of a listener are told: of each node, or of one that stands for all.
const (
	advertiseNode  = "node"
	advertiseProxy = "proxy"
)

// parseListenerAdvertise reads NAME:node and NAME:proxy, separated by commas.
func parseListenerAdvertise(v string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range splitList(v) {
		name, mode, ok := strings.Cut(s, ":")
		name, mode = strings.ToUpper(strings.TrimSpace(name)), strings.ToLower(strings.TrimSpace(mode))
		if !ok || name == "" || mode != advertiseNode && mode != advertiseProxy {
			return nil, fmt.Errorf("%q is not NAME:node or NAME:proxy", s)
		}
		if m[name] != "" {
			return nil, fmt.Errorf("names %s twice", name)
		}
		m[name] = mode
	}
	return m, nil
}

// proxyListeners says of which listeners, by name, the clients are told of one
// node that stands for all.
func proxyListeners(c *config) func(name string) bool {
	modes, err := parseListenerAdvertise(c.str("listener.advertise"))
	if err != nil {
		panic("listener.advertise was checked when it was loaded: " + err.Error())
	}
	return func(name string) bool { return modes[name] == advertiseProxy }
}

// proxyProtocol is how connections of the listener called name begin that are
// to come through a load balancer; nil: as any other.
func proxyProtocol(c *config, name string) (*proxy.ProxyProtocol, error) {
	named := func(s string) bool { return strings.EqualFold(s, name) }
	if !slices.ContainsFunc(splitList(c.str("listener.proxy.protocol")), named) {
		return nil, nil
	}
	trusted, err := parseNetworks(c.str("proxy.protocol.trusted.networks"))
	return &proxy.ProxyProtocol{Trusted: trusted}, err
}

func checkNetworks(v string) error {
	_, err := parseNetworks(v)
	return err
}

// parseNetworks reads CIDR blocks and single addresses, separated by commas.
func parseNetworks(v string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range splitList(v) {
		network, err := netip.ParsePrefix(s)
		if err != nil {
			ip, ipErr := netip.ParseAddr(s)
			if ipErr != nil || ip.Zone() != "" {
				return nil, fmt.Errorf("%q is neither a network (10.0.0.0/8) nor an address", s)
			}
			network = netip.PrefixFrom(ip, ip.BitLen())
		}
		if network.Addr().Is4In6() {
			return nil, fmt.Errorf("%q: write it as IPv4", s)
		}
		out = append(out, network.Masked())
	}
	return out, nil
}

// securityProtocols are Kafka's, which are also the listener names that need no
// entry in listener.security.protocol.map.
var securityProtocols = map[string]bool{"PLAINTEXT": true, "SSL": true, "SASL_PLAINTEXT": false, "SASL_SSL": false}

func checkProtocolMap(v string) error {
	_, err := parseProtocolMap(v)
	return err
}

func parseProtocolMap(v string) (map[string]string, error) {
	m := map[string]string{"PLAINTEXT": "PLAINTEXT", "SSL": "SSL", "UNIX": "PLAINTEXT"}
	for _, s := range splitList(v) {
		name, protocol, ok := strings.Cut(s, ":")
		name, protocol = strings.ToUpper(strings.TrimSpace(name)), strings.ToUpper(strings.TrimSpace(protocol))
		served, known := securityProtocols[protocol]
		switch {
		case !ok || name == "" || !known:
			return nil, fmt.Errorf("%q is not NAME:PROTOCOL", s)
		case !served:
			return nil, fmt.Errorf("%s: %s is not served yet, only PLAINTEXT and SSL", name, protocol)
		}
		m[name] = protocol
	}
	return m, nil
}

func checkHostPort(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return fmt.Errorf("%q is not host:port", v)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: the port must be a number from 0 to 65535", v)
	}
	return nil
}

// checkListenerSet checks what concerns the three listener keys together.
func checkListenerSet(c *config) error {
	protocols, err := parseProtocolMap(c.str("listener.security.protocol.map"))
	if err != nil {
		return err
	}
	ls, err := parseListeners(c.str("listeners"))
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, l := range ls {
		if served, known := securityProtocols[l.Name]; known && !served {
			return fmt.Errorf("listeners: %s is not served yet, only PLAINTEXT and SSL", l.Name)
		}
		if protocols[l.Name] == "" {
			return fmt.Errorf("listeners: %[1]s has no protocol: add %[1]s:PLAINTEXT or %[1]s:SSL to listener.security.protocol.map", l.Name)
		}
		names[l.Name] = true
	}
	modes, err := parseListenerAdvertise(c.str("listener.advertise"))
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(modes)) {
		if !names[name] {
			return fmt.Errorf("listener.advertise: %s is not in listeners", name)
		}
	}
	for _, name := range splitList(c.str("listener.proxy.protocol")) {
		if !names[strings.ToUpper(name)] {
			return fmt.Errorf("listener.proxy.protocol: %s is not in listeners", strings.ToUpper(name))
		}
	}
	if c.str("advertised.listeners") == "" {
		return nil
	}
	as, err := parseAdvertised(c.str("advertised.listeners"), 1, "node")
	if err != nil {
		return err
	}
	for _, a := range as {
		if !names[a.Name] {
			return fmt.Errorf("advertised.listeners: %s is not in listeners", a.Name)
		}
	}
	return nil
}

// advertised decides what clients of each listener are told, by listener name.
// bound are the listeners as they are bound, with their real ports; id and name
// are the node's.
//
// A client that came through a unix socket is told of advertised.listeners if
// that names its listener, else of the first TCP listener: the protocol has no
// way to say a path.
func advertised(c *config, bound []listener, id int32, name string) (map[string]listener, error) {
	out := map[string]listener{}
	if v := c.str("advertised.listeners"); v != "" {
		as, err := parseAdvertised(v, id, name)
		if err != nil {
			return nil, fmt.Errorf("advertised.listeners of node %d: %w", id, err)
		}
		for _, a := range as {
			out[a.Name] = a
		}
	}
	var first *listener
	for i, l := range bound {
		if l.Path != "" {
			continue
		}
		if _, ok := out[l.Name]; !ok {
			host, err := reachableHost(l.Host)
			if err != nil {
				return nil, err
			}
			out[l.Name] = listener{Name: l.Name, Host: host, Port: l.Port}
		}
		if first == nil {
			first = &bound[i]
		}
	}
	for _, l := range bound {
		if _, ok := out[l.Name]; ok {
			continue
		}
		if first == nil {
			return nil, fmt.Errorf("advertised.listeners: must name %s, since a unix socket is the only listener", l.Name)
		}
		a := out[first.Name]
		a.Name = l.Name
		out[l.Name] = a
	}
	return out, nil
}

// reachableHost is what clients are told of a listener bound to host: host
// itself, or the machine's name if host is every interface (as Kafka does).
func reachableHost(host string) (string, error) {
	if host != "" && !(net.ParseIP(host) != nil && net.ParseIP(host).IsUnspecified()) {
		return host, nil
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "", errors.New("advertised.listeners: the machine has no name to tell clients, set it")
	}
	return name, nil
}

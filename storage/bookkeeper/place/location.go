package place

import (
	"fmt"
	"net"
	"strings"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// Location is where a bookie stands. Bookies of which nothing is known have the
// zero Location: they share one unknown rack, but not a host.
type Location struct {
	Region, Rack, Host string
}

// ParseLocation reads "rack", "region/rack" or "region/rack/host", with or
// without a slash before it, as BookKeeper's scripts for network topology do.
func ParseLocation(s string) (Location, error) {
	parts := strings.Split(strings.TrimPrefix(s, "/"), "/")
	for _, p := range parts {
		if strings.TrimSpace(p) == "" {
			return Location{}, fmt.Errorf("location %q: want rack, region/rack or region/rack/host", s)
		}
	}
	switch len(parts) {
	case 1:
		return Location{Rack: parts[0]}, nil
	case 2:
		return Location{Region: parts[0], Rack: parts[1]}, nil
	case 3:
		return Location{Region: parts[0], Rack: parts[1], Host: parts[2]}, nil
	}
	return Location{}, fmt.Errorf("location %q: want rack, region/rack or region/rack/host", s)
}

// Topology says where bookies are.
type Topology map[string]Location

// ParseTopology reads locations by bookie id or by host.
func ParseTopology(locations map[string]string) (Topology, error) {
	t := make(Topology, len(locations))
	for name, s := range locations {
		l, err := ParseLocation(s)
		if err != nil {
			return nil, fmt.Errorf("topology of %s: %w", name, err)
		}
		t[name] = l
	}
	return t, nil
}

// Of returns the location of a bookie: that of its id, else that of the host of
// its address. A location without a host gets that of the address.
func (t Topology) Of(id metadata.BookieID, addr string) Location {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = ""
	}
	l, ok := t[string(id)]
	if !ok && host != "" {
		l = t[host]
	}
	if l.Host == "" {
		l.Host = host
	}
	return l
}

// rack and host are the names by which locations are compared. The same rack
// name in another region is another rack.
func (l Location) rack() string { return l.Region + "/" + l.Rack }

func (l Location) host(id metadata.BookieID) string {
	if l.Host == "" {
		return "\x00" + string(id)
	}
	return l.rack() + "/" + l.Host
}

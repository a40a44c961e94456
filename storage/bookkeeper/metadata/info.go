package metadata

import (
	"fmt"
	"net"
	"slices"
	"strconv"
)

// ServiceInfo is BookieServiceInfoFormat: how a bookie can be reached.
type ServiceInfo struct {
	Endpoints []Endpoint
}

// Endpoint is one port of a bookie.
type Endpoint struct {
	ID         string // "bookie"
	Host       string
	Port       int
	Protocol   string   // "bookie-rpc" is what clients speak
	Extensions []string // "tls"
}

// Numbers of the fields of BookieServiceInfoFormat (DataFormats.proto).
const (
	fieldEndpoint = 6

	fieldEndpointID        = 1
	fieldEndpointPort      = 2
	fieldEndpointHost      = 3
	fieldEndpointProtocol  = 4
	fieldEndpointExtension = 6

	protocolRPC  = "bookie-rpc"
	extensionTLS = "tls"
)

// ParseServiceInfo reads the value of a registration. An empty one, as bookies
// before 4.11 wrote, has no endpoints. ErrCorrupt.
func ParseServiceInfo(data []byte) (ServiceInfo, error) {
	var info ServiceInfo
	err := eachField(data, func(f field) error {
		if f.Number != fieldEndpoint {
			return nil
		}
		if err := f.want(true); err != nil {
			return err
		}
		e, err := parseEndpoint(f.bytes)
		info.Endpoints = append(info.Endpoints, e)
		return err
	})
	if err != nil {
		return ServiceInfo{}, fmt.Errorf("bookie registration: %w: %w", ErrCorrupt, err)
	}
	return info, nil
}

func parseEndpoint(msg []byte) (Endpoint, error) {
	var e Endpoint
	err := eachField(msg, func(f field) error {
		switch f.Number {
		case fieldEndpointID:
			e.ID = string(f.bytes)
			return f.want(true)
		case fieldEndpointPort:
			if err := f.want(false); err != nil {
				return err
			}
			if f.number < 0 || f.number > 65535 {
				return fmt.Errorf("port %d", f.number)
			}
			e.Port = int(f.number)
		case fieldEndpointHost:
			e.Host = string(f.bytes)
			return f.want(true)
		case fieldEndpointProtocol:
			e.Protocol = string(f.bytes)
			return f.want(true)
		case fieldEndpointExtension:
			e.Extensions = append(e.Extensions, string(f.bytes))
			return f.want(true)
		}
		return nil
	})
	return e, err
}

// AppendServiceInfo appends the value of a registration, as a bookie writes it.
func AppendServiceInfo(dst []byte, info ServiceInfo) []byte {
	for _, e := range info.Endpoints {
		msg := appendBytes(nil, fieldEndpointID, e.ID)
		msg = appendInt(msg, fieldEndpointPort, int64(e.Port))
		msg = appendBytes(msg, fieldEndpointHost, e.Host)
		msg = appendBytes(msg, fieldEndpointProtocol, e.Protocol)
		for _, x := range e.Extensions {
			msg = appendBytes(msg, fieldEndpointExtension, x)
		}
		dst = appendBytes(dst, fieldEndpoint, msg)
	}
	return dst
}

// rpc returns where clients dial the bookie. A registration without such an
// endpoint is of a bookie whose id is its address.
func (s ServiceInfo) rpc(id BookieID) (addr string, tls bool) {
	for _, e := range s.Endpoints {
		if e.Protocol == protocolRPC {
			return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)), slices.Contains(e.Extensions, extensionTLS)
		}
	}
	return addressOf(id), false
}

package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// TestHealth: the first check that fails is named with its reason, in one line,
// and readiness includes liveness.
func TestHealth(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var alive, ready error
	check := func(name string, err *error) []healthCheck {
		return []healthCheck{{name, func(context.Context) error { return *err }}}
	}
	a := startAdmin(l, newRegistry(), check("loops", &alive), check("disk", &ready), zap.NewNop())
	for _, c := range []struct {
		alive, ready  error
		livez, readyz string
	}{
		{nil, nil, "200 loops: ok", "200 loops: ok\ndisk: ok"},
		{nil, errors.New("read\nonly"), "200 loops: ok", "503 disk: read only"},
		{errors.New("stuck"), nil, "503 loops: stuck", "503 loops: stuck"},
	} {
		alive, ready = c.alive, c.ready
		for path, want := range map[string]string{"/livez": c.livez, "/readyz": c.readyz} {
			status, body := get(t, l.Addr().String(), path)
			wantStatus, wantBody, _ := strings.Cut(want, " ")
			if map[int]string{200: "200", 503: "503"}[status] != wantStatus || body != wantBody+"\n" {
				t.Errorf("%s: %d %q, want %q", path, status, body, want)
			}
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

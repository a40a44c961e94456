package main

import (
	"context"
	"errors"
	"net"
	"net/http"
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
	var remark string
	check := func(name string, err *error) []healthCheck {
		return []healthCheck{{name: name, check: func(context.Context) error { return *err }, remark: func() string { return remark }}}
	}
	a := startAdmin(l, newRegistry(), check("loops", &alive), check("disk", &ready), func(*http.ServeMux) {}, zap.NewNop())
	for _, c := range []struct {
		alive, ready  error
		remark        string
		livez, readyz string
	}{
		{nil, nil, "", "200 loops: ok", "200 loops: ok\ndisk: ok"},
		{nil, nil, "nearly\nfull", "200 loops: ok, but nearly full", "200 loops: ok, but nearly full\ndisk: ok, but nearly full"},
		{nil, errors.New("read\nonly"), "", "200 loops: ok", "503 disk: read only"},
		{errors.New("stuck"), nil, "", "503 loops: stuck", "503 loops: stuck"},
	} {
		alive, ready, remark = c.alive, c.ready, c.remark
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

func TestNotReadyBeforeItServes(t *testing.T) {
	n := new(node)
	if err := n.checkServing(t.Context()); err == nil {
		t.Error("a node that serves nobody yet is ready")
	}
}

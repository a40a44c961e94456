// Command zoo runs Kafka clients of many languages and years against one Quire:
// each does everything it can do, then writes topics that all others read. What
// came out is compared with what is committed, and written to RESULTS.md and
// COMPATIBILITY.md with -update.
package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Row is one client at one version, and at one protocol setting where the
// client has such a setting.
type Row struct {
	Name    string // unique: letters, digits, and .-_; part of topic names
	Client  string // as the tables show it
	Version string // likewise, with the protocol setting
	CI      bool   // also run in the short set

	// Install brings the client from its registry, at pinned versions, and
	// returns how its program is run. It is cached, so it is called every time.
	Install func(context.Context, *Tools) (Program, error)

	// What the client's API and the formats it uses carry. What one side of a
	// comparison cannot carry is not compared.
	Headers    bool
	Timestamps bool // sets and shows them
	Nulls      bool // tells a null key or value from an empty one

	Codecs []string // that it writes; see codecs
	Reads  []string // codecs that it reads; nil for the same

	// Impossible are checks that the client cannot pass against any server of
	// today, with the reason. The key is a check's name, "produce" or "consume"
	// for the phase in which others are involved, or a name's beginning and "*".
	Impossible map[string]string
}

// A Program is a command line and what it needs in its environment beside this
// process's own and the ZOO_ variables.
type Program struct {
	Args []string
	Env  []string // NAME=value
}

// The phases of a row; each is one run of its program.
const (
	phaseOwn     = "own"     // everything the client can do, on topics of its own
	phaseProduce = "produce" // writes the canonical records to the topics given
	phaseConsume = "consume" // reads the topics given and prints their records
)

// codecs are Kafka's names of them, in the order of their numbers.
var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

func (r Row) reads() []string {
	if r.Reads != nil {
		return r.Reads
	}
	return r.Codecs
}

// impossible returns why the client cannot pass the check, "" when it can.
func (r Row) impossible(check string) string {
	if reason := r.Impossible[check]; reason != "" {
		return reason
	}
	for pattern, reason := range r.Impossible {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok && strings.HasPrefix(check, prefix) {
			return reason
		}
	}
	return ""
}

// topic names what the row writes in the codec for the others.
func (r Row) topic(codec string) string { return "zoo-x-" + r.Name + "-" + codec }

// rows are all clients, grouped as the tables show them.
func rows() []Row { return slices.Concat(rowsJava(), rowsGo(), rowsScript()) }

// checkName is what every name of a check looks like.
var checkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

var rowName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// validate finds mistakes in the table of rows.
func validate(all []Row) error {
	seen := map[string]bool{}
	for _, r := range all {
		switch {
		case !rowName.MatchString(r.Name):
			return fmt.Errorf("row %q: the name is part of topic names: letters, digits, '.', '_' and '-' only", r.Name)
		case seen[r.Name]:
			return fmt.Errorf("row %s is there twice", r.Name)
		case r.Client == "" || r.Version == "" || r.Install == nil:
			return fmt.Errorf("row %s: Client, Version and Install are needed", r.Name)
		}
		seen[r.Name] = true
		for _, c := range slices.Concat(r.Codecs, r.Reads) {
			if !slices.Contains(codecs, c) {
				return fmt.Errorf("row %s: unknown codec %q", r.Name, c)
			}
		}
	}
	return nil
}

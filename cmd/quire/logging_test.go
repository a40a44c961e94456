package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
)

func TestSameLinesAreFew(t *testing.T) {
	c, err := loadConfig("", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log := newLogger(c, file)
	for i := range 100_000 {
		log.Error("stored entry is corrupt", zap.Int("entry", i))
	}
	log.Error("something else")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(text, []byte("\n")); lines < sameLines || lines > 50_000 || !bytes.Contains(text, []byte("something else")) {
		t.Errorf("%d lines are written", lines)
	}
}

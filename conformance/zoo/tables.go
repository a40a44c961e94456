package main

import (
	"errors"
	"os"
	"path/filepath"
)

// writeTables writes the documents that are made of the results.
func writeTables(root string, all []Row, r results) error {
	return errors.Join(
		os.WriteFile(filepath.Join(root, resultsTable), []byte(resultsDocument(all, r)), 0o644),
	)
}

func resultsDocument(all []Row, r results) string { return "" }

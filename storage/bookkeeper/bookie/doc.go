// Package bookie holds the connections to one bookie.
package bookie

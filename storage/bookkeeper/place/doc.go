// Package place chooses the bookies of an ensemble. It is pure.
package place

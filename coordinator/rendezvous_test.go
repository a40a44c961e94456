package coordinator

import (
	"fmt"
	"slices"
	"testing"
)

func nodesOf(weights ...int32) (c []candidate) {
	for i, w := range weights {
		c = append(c, candidate{id: int32(i + 1), weight: w})
	}
	return c
}

// Every node has its share by weight. The standard deviation of a share of p is
// sqrt(1024 p (1-p)); nothing is further off than four of them.
func TestRendezvousShares(t *testing.T) {
	for _, weights := range [][]int32{{100}, {100, 100, 100}, {100, 200, 300}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {100, 50}, {1000, 1}} {
		var total int32
		for _, w := range weights {
			total += w
		}
		got := make([]int, len(weights)+1)
		for slot := range NumSlots {
			id, ok := best(slot, nodesOf(weights...))
			if !ok {
				t.Fatal("nobody is the best")
			}
			got[id]++
		}
		for i, w := range weights {
			p := float64(w) / float64(total)
			off := float64(got[i+1]) - NumSlots*p
			if off*off > 16*NumSlots*p*(1-p)+1 {
				t.Errorf("weights %v: node %d has %d slots, its share is %.0f", weights, i+1, got[i+1], NumSlots*p)
			}
		}
	}
	if id, ok := best(0, nil); ok || id != 0 {
		t.Errorf("of nobody %d is the best", id)
	}
}

// A node that joins takes slots from others and moves no other; its leaving, and
// a change of its weight, likewise.
func TestRendezvousMovesLittle(t *testing.T) {
	all := nodesOf(100, 100, 70, 130, 100)
	for i := range all {
		t.Run(fmt.Sprint("without ", all[i].id), func(t *testing.T) {
			without := slices.Delete(slices.Clone(all), i, i+1)
			lighter := slices.Clone(all)
			lighter[i].weight /= 2
			kept := 0
			for slot := range NumSlots {
				with, _ := best(slot, all)
				before, _ := best(slot, without)
				if with != before && with != all[i].id {
					t.Errorf("slot %d goes from %d to %d when %d comes", slot, before, with, all[i].id)
				}
				after, _ := best(slot, lighter)
				if after != with && with != all[i].id {
					t.Errorf("slot %d goes from %d to %d when %d is lighter", slot, with, after, all[i].id)
				}
				if with == all[i].id && after == with {
					kept++
				}
			}
			if kept == 0 {
				t.Error("the lighter node keeps nothing")
			}
		})
	}
}

// The order has everybody once, the best first, whatever the order they are given in.
func TestRendezvousOrder(t *testing.T) {
	all := nodesOf(100, 100, 70, 130, 100)
	turned := slices.Clone(all)
	slices.Reverse(turned)
	for slot := range NumSlots {
		order := rank(slot, all)
		first, _ := best(slot, turned)
		if order[0] != first || !slices.Equal(order, rank(slot, turned)) {
			t.Fatalf("slot %d: %v, the best is %d", slot, order, first)
		}
		// Without its first the second is the best.
		rest := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return c.id == order[0] })
		if second, _ := best(slot, rest); second != order[1] {
			t.Fatalf("slot %d: %v, then %d", slot, order, second)
		}
		slices.Sort(order)
		if !slices.Equal(order, []int32{1, 2, 3, 4, 5}) {
			t.Fatalf("slot %d: %v", slot, order)
		}
	}
}

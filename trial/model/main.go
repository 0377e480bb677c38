// Trial-model searches the failover protocol in every order in which its steps can
// happen: two nodes, two brains, one group, and a store whose commits and answers
// come as late as they like. It is the protocol alone, without the code that carries
// it out. The rules as they are must hold, and each clause that is left out must be
// found out; GEMEL_SHORT=1 searches the smallest of them.
package main

import (
	"fmt"
	"os"
	"time"
)

// most bounds a search: what is not complete by then has failed.
const most = 30_000_000

func main() {
	short, names := os.Getenv("GEMEL_SHORT") != "", os.Args[1:]
	n, wrong := 0, 0
	for _, v := range variants() {
		if len(names) > 0 && !has(names, v.name) || len(names) == 0 && short && !v.short {
			continue
		}
		n++
		began := time.Now()
		r := search(&v.rules, most)
		took := time.Since(began).Round(time.Millisecond)
		said, ok := judge(&v, &r)
		fmt.Printf("%-12s %-72s %9d states %9v  %s\n", v.name, v.what, r.states, took, said)
		if !ok {
			wrong++
		}
		if r.broken != "" && (!ok || len(names) > 0) {
			for i, line := range r.run {
				fmt.Printf("  %3d. %s\n", i+1, line)
			}
		}
	}
	fmt.Printf("trial-model: %d trials, %d violations\n", n, wrong)
	if wrong > 0 || n == 0 {
		os.Exit(1)
	}
}

// judge says what came out, and whether that is as it must be.
func judge(v *variant, r *result) (said string, ok bool) {
	switch {
	case r.broken != "" && v.broken:
		return fmt.Sprintf("found in %d steps", len(r.run)), true
	case r.broken != "":
		return "VIOLATION: " + r.broken, false
	case !r.complete:
		return "NOT COMPLETE", false
	case v.broken:
		return "NOT FOUND OUT", false
	}
	return "complete, none", true
}

func has(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

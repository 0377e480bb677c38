// Command cost measures one Beat of the SDK: nanoseconds for each of many trials,
// one a line. The page is that of GEMEL_BEAT_PAGE.
package main

import (
	"fmt"
	"os"
	"time"

	"gemel"
)

const (
	trials = 300
	beats  = 1_000_000
)

func main() {
	b := gemel.Thread("cost")
	defer b.Done()
	if !b.Watched() {
		fmt.Fprintln(os.Stderr, "cost: no place on the page of GEMEL_BEAT_PAGE")
		os.Exit(2)
	}
	for range trials {
		began := time.Now()
		for range beats {
			b.Beat()
		}
		fmt.Println(float64(time.Since(began).Nanoseconds()) / beats)
	}
}

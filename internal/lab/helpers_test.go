package lab

import (
	"fmt"
	"os"
)

// helpers are the programs that the test binary plays.
func helpers() map[string]func([]string) {
	return map[string]func([]string){
		"exit": func(args []string) { os.Exit(2) },
		"say":  func(args []string) { fmt.Println(args) },
	}
}

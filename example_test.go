package gemel_test

import (
	"fmt"
	"log"

	"gemel"
)

// A worker that beats once for each piece of work.
func ExampleThread() {
	jobs := make(chan int, 3)
	jobs <- 1
	jobs <- 2
	jobs <- 3
	close(jobs)

	beat := gemel.Thread("worker")
	defer beat.Done()
	for job := range jobs {
		beat.Beat()
		fmt.Println("job", job)
	}
	// Output:
	// job 1
	// job 2
	// job 3
}

// A server says that it is ready only when it can be used.
func ExampleReady() {
	if err := gemel.Status("reading the index"); err != nil {
		log.Print(err)
	}
	fmt.Println("listening")
	if err := gemel.Ready(); err != nil {
		log.Print(err) // it works on: nobody but Gemel needs to know
	}
	// Output: listening
}

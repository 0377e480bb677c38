// Package gate lets what runs by the right of a group send and hear nothing once its
// deadline has passed (DESIGN 5.3, point 5). The kernel itself looks at the deadline at
// each packet, so that it holds although every process of Gemel stands still: a machine
// that was stopped and goes on does not answer for the moment that it takes until its
// programs are killed.
//
// It is in addition to the kill, never in its place. It lasts as long as the process that
// made it: who takes over from it makes it anew.
package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"gemel/internal/ha"
)

// A Gate is that of one group. It is used by one goroutine.
type Gate struct {
	deadline *ebpf.Map
	program  *ebpf.Program
}

// New makes a gate that is shut until it is told a deadline. It fails where the kernel
// is older than 5.8, has no such programs, or does not let this process load them.
func New() (*Gate, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "gemel_deadline", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("making the deadline of a gate: %w", err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "gemel_gate", Type: ebpf.CGroupSKB, License: "MIT", Instructions: asm.Instructions{
		// r6 = the deadline
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R6, asm.R0, 0, asm.DWord),
		// The clock of the deadlines: it goes on while the machine sleeps.
		asm.FnKtimeGetBootNs.Call(),
		asm.JGE.Reg(asm.R0, asm.R6, "drop"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("drop"),
		asm.Return(),
	}})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a gate: %w", err), m.Close())
	}
	return &Gate{m, p}, nil
}

// Until keeps the gate open until an instant, and shut from then on.
func (g *Gate) Until(at ha.Instant) error {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(min(max(at, 0), math.MaxInt64)))
	if err := g.deadline.Put(uint32(0), b[:]); err != nil {
		return fmt.Errorf("setting the deadline of a gate: %w", err)
	}
	return nil
}

// Hold puts the gate before everything that is in a control group of version 2, or will
// be, until what it returns is closed.
func (g *Gate) Hold(dir string) (io.Closer, error) {
	if dir == "" {
		return nil, errors.New("holding a gate: there is no control group of version 2")
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("holding a gate: %w", err)
	}
	defer f.Close()
	var both pair
	for _, way := range []ebpf.AttachType{ebpf.AttachCGroupInetIngress, ebpf.AttachCGroupInetEgress} {
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(f.Fd()), Program: g.program, Attach: way})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("holding a gate before %s: %w", dir, err), both.Close())
		}
		both = append(both, l)
	}
	return both, nil
}

// Close ends what the gate needs. What it holds still is held by what Hold returned.
func (g *Gate) Close() error { return errors.Join(g.program.Close(), g.deadline.Close()) }

type pair []io.Closer

func (p pair) Close() error {
	var errs []error
	for _, c := range p {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

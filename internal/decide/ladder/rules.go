package ladder

import (
	"fmt"
	"time"

	"gemel/internal/ha"
)

// The rules that a reason may name. DESIGN.md has one sentence for each.
const (
	ruleStart     = "ladder.start"
	ruleRestart   = "ladder.restart"
	ruleStanding  = "ladder.standing-order"
	ruleDisarm    = "ladder.take-back"
	ruleFault     = "ladder.fault"
	ruleEvidence  = "ladder.evidence"
	ruleNone      = "ladder.recovery-none"
	ruleGiveUp    = "ladder.give-up"
	ruleExcess    = "ladder.excess"
	ruleFailover  = "ladder.failover"
	ruleMoved     = "ladder.moved"
	ruleReboot    = "ladder.reboot"
	ruleStill     = "ladder.still-active"
	ruleBudget    = "ladder.budget"
	ruleRecovered = "ladder.recovered"
	ruleInit      = "ladder.initialized"
	ruleExit      = "ladder.exit"
	ruleExpected  = "ladder.expected"
	ruleStop      = "ladder.stop"
	ruleExtend    = "ladder.extend"
	ruleStray     = "ladder.stray"
	ruleStuck     = "ladder.stuck"
	ruleStarted   = "ladder.started"
	ruleReady     = "ladder.ready"
	ruleAdopt     = "ladder.adopt"
	ruleWatch     = "ladder.watch"
	ruleJudge     = "ladder.judge"
	ruleSeek      = "ladder.seek"
	ruleFollow    = "ladder.follow"
	ruleApply     = "ladder.apply"
	ruleNode      = "ladder.node"
	ruleRequest   = "ladder.request"
	ruleRefused   = "ladder.refused"
	ruleQuit      = "ladder.quit"
	ruleHalf      = "ladder.half"
	ruleKeep      = "ladder.keep"
	ruleInternal  = "ladder.internal"
	ruleGroup     = "ladder.group"
	ruleLapse     = "ladder.lapse"
	rulePart      = "ladder.part"
	ruleAccount   = "ladder.account"
	ruleLate      = "ladder.late"
	ruleUnproved  = "ladder.unproved"
	ruleEntrust   = "ladder.entrust"
)

// because makes a reason; facts are names and values in turn.
func because(rule, text string, facts ...any) ha.Reason {
	r := ha.Reason{Rule: rule, Text: text}
	for i := 0; i+1 < len(facts); i += 2 {
		value := facts[i+1]
		if d, ok := value.(time.Duration); ok {
			value = ha.Span(d)
		}
		r.Facts = append(r.Facts, ha.Fact{Name: fmt.Sprint(facts[i]), Value: fmt.Sprint(value)})
	}
	return r
}

// restarts prints "1 restart" and "2 restarts".
func restarts(n int) string {
	if n == 1 {
		return "1 restart"
	}
	return fmt.Sprintf("%d restarts", n)
}

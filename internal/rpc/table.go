package rpc

import (
	"strings"

	"gemel/api/gemel/v1/gemelv1connect"
	"gemel/internal/access"
)

const (
	smallBody = 64 << 10          // bytes of a request that names things
	largeBody = 4<<20 + smallBody // bytes of a request that holds a manifest
)

// row is the law of one method.
type row struct {
	least  access.Role
	change bool // it is kept in the audit
	body   int  // bytes of a request at most
}

// table has every method of the service. It is only read. A method that is not
// here is denied to everybody, and a test compares it with the contract.
var table = map[string]row{
	gemelv1connect.GemelStatusProcedure:       {least: access.Viewer, body: smallBody},
	gemelv1connect.GemelCertificatesProcedure: {least: access.Viewer, body: smallBody},
	gemelv1connect.GemelWatchStatusProcedure:  {least: access.Viewer, body: smallBody},
	gemelv1connect.GemelEventsProcedure:       {least: access.Viewer, body: smallBody},
	gemelv1connect.GemelWatchEventsProcedure:  {least: access.Viewer, body: smallBody},
	gemelv1connect.GemelAlarmsProcedure:       {least: access.Viewer, body: smallBody},
	gemelv1connect.GemelWhyProcedure:          {least: access.Viewer, body: smallBody},
	gemelv1connect.GemelPlanProcedure:         {least: access.Viewer, body: largeBody},

	gemelv1connect.GemelRequestProcedure:  {least: access.Operator, change: true, body: smallBody},
	gemelv1connect.GemelManifestProcedure: {least: access.Operator, body: smallBody},
	gemelv1connect.GemelDiffProcedure:     {least: access.Operator, body: largeBody},
	gemelv1connect.GemelLogsProcedure:     {least: access.Operator, body: smallBody},
	gemelv1connect.GemelReplayProcedure:   {least: access.Operator, body: smallBody},
	gemelv1connect.GemelEvidenceProcedure: {least: access.Operator, body: smallBody},

	gemelv1connect.GemelApplyProcedure:    {least: access.Admin, change: true, body: largeBody},
	gemelv1connect.GemelDetachProcedure:   {least: access.Admin, change: true, body: smallBody},
	gemelv1connect.GemelUpgradeProcedure:  {least: access.Admin, change: true, body: smallBody},
	gemelv1connect.GemelShutdownProcedure: {least: access.Admin, change: true, body: smallBody},
	gemelv1connect.GemelTokenProcedure:    {least: access.Admin, change: true, body: smallBody},
	gemelv1connect.GemelLeaveProcedure:    {least: access.Admin, change: true, body: smallBody},
	gemelv1connect.GemelRenewProcedure:    {least: access.Admin, change: true, body: smallBody},
	gemelv1connect.GemelRotateProcedure:   {least: access.Admin, change: true, body: smallBody},
	gemelv1connect.GemelBackupProcedure:   {least: access.Admin, change: true, body: smallBody},

	gemelv1connect.GemelWhoAmIProcedure:  {least: access.None, body: smallBody},
	gemelv1connect.GemelVersionProcedure: {least: access.None, body: smallBody},
}

// method is the last part of a procedure's path.
func method(procedure string) string {
	return procedure[strings.LastIndexByte(procedure, '/')+1:]
}

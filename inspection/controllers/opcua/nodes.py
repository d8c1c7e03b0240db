"""The address space of OPC 40100-1: builds the VisionSystem object, serves its methods, raises its events."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspection.controllers.opcua.jobs import (
    AcquisitionDone,
    Announcement,
    Automatic,
    JobStarted,
    Ready,
    RecipePrepared,
    Result,
    Shown,
    Vision,
)
from inspection.controllers.register_map import reason_code
from inspection.types import Detection

if TYPE_CHECKING:
    from asyncua.common.node import Node
    from asyncua.server.server import Server

NODESET = Path(__file__).with_name("Opc.Ua.MachineVision.NodeSet2.xml")
NAMESPACE = "http://opcfoundation.org/UA/MachineVision"
OWN_NAMESPACE = "urn:lineside:station"
MOST_FINDINGS = 200
Answer = list[Any]  # output arguments as asyncua Variants
Method = Callable[..., Awaitable[Answer]]

# Numeric identifiers of the nodeset.
_VISION_SYSTEM_TYPE = 1003
_BINARY_ID_TYPE = 3019
_ID_TYPES = (3002, 3008, 3013)  # its subtypes: RecipeIdExternal, ConfigurationId, RecipeIdInternal
_VISION_STATES = {Vision.PREOPERATIONAL: 5028, Vision.HALTED: 5029, Vision.ERROR: 5030, Vision.OPERATIONAL: 5031}
_AUTOMATIC_STATES = {Automatic.INITIALIZED: 5056, Automatic.READY: 5057, Automatic.SINGLE_EXECUTION: 5058,
                     Automatic.CONTINUOUS_EXECUTION: 5059}  # fmt: skip
_EVENT_TYPES = {"StateChanged": 1018, "RecipePrepared": 1022, "JobStarted": 1013, "AcquisitionDone": 1025,
                "Ready": 1023, "ResultReady": 1024}  # fmt: skip

MACHINE = ("VisionStateMachine",)
AUTOMATIC = (*MACHINE, "AutomaticModeStateMachine")
RECIPES = ("RecipeManagement",)
RESULTS = ("ResultManagement",)
# What asyncua makes of optional parts that are not implemented: taken away again.
_NOT_SERVED = (
    *((name,) for name in ("ConfigurationManagement", "SafetyStateManagement", "DiagnosticLevel", "SystemState")),
    *((*MACHINE, name) for name in ("ConfirmAll", "ErrorStepModel", "HaltedStepModel", "PreoperationalStepModel")),
    *((*AUTOMATIC, name) for name in ("SimulationMode", "ContinuousExecutionStepModel", "InitializedStepModel",
                                      "ReadyStepModel", "SingleExecutionStepModel")),
    *((*RECIPES, name) for name in ("AddRecipe", "RemoveRecipe", "PrepareProduct", "UnprepareProduct", "UnlinkProduct",
                                    "ReleaseRecipeHandle", "Products", "Recipes", "RecipeTransfer")),
    *((*RESULTS, name) for name in ("ReleaseResultHandle", "Results", "ResultTransfer")),
)  # fmt: skip
_STATION_VARIABLES = (
    ("Heartbeat", "UInt32", 0),
    ("RecipeId", "String", ""),
    ("LastRefusal", "String", ""),
    ("LastJobId", "String", ""),
    ("LastPartId", "String", ""),
    ("LastResultId", "String", ""),
    ("LastResultState", "Int32", 0),
    ("LastVerdict", "Int32", 0),
    ("LastVerdictName", "String", "ERROR"),
    ("LastReasonCode", "Int32", 0),
)


def opcua_types() -> Any:
    """asyncua's names of OPC UA, among them those that it made of the nodeset; only where asyncua is installed."""
    from asyncua import ua

    return ua


class VisionNodes:
    """The objects of one vision system in an initialised server.  Only the server's thread calls it."""

    def __init__(self, server: "Server", name: str) -> None:
        self._server = server
        self._name = name
        self._system: Node
        self._spec = self._own = 0
        self._nodes: dict[str, Node] = {}
        self._events: dict[str, Any] = {}
        self._shown = Shown(Vision.PREOPERATIONAL, Automatic.NONE)
        self._beats = 0

    async def build(self) -> None:
        """Import the companion specification and make the object; takes about half a second."""
        ua = opcua_types()
        server = self._server
        await server.import_xml(xmlstring=_with_complete_ids(NODESET.read_text(encoding="utf-8")))
        self._spec = await server.get_namespace_index(NAMESPACE)
        self._own = await server.register_namespace(OWN_NAMESPACE)
        self._system = await server.nodes.objects.add_object(
            ua.NodeId(self._name, self._own),
            ua.QualifiedName(self._name, self._own),
            objecttype=self._id(_VISION_SYSTEM_TYPE),
        )
        for path in _NOT_SERVED:
            await self._take_away(path)
        for name, path in (("vision", MACHINE), ("automatic", AUTOMATIC)):
            await self._find_machine(name, path)
        await self._add_variables()
        for name, number in _EVENT_TYPES.items():
            self._events[name] = await server.get_event_generator(self._id(number), self._system.nodeid)
        await self._show_machine("vision", "Preoperational", _VISION_STATES[Vision.PREOPERATIONAL], 1)
        await self._show_machine("automatic", "", None, 0)

    async def serve(self, path: tuple[str, ...], method: Method) -> None:
        """Answer this method of the address space; ``method`` takes the input arguments as plain values."""
        node = await self._child(path)
        wanted = len(await self._arguments(node))
        ua = opcua_types()

        async def call(_parent: Any, *arguments: Any) -> Any:
            if len(arguments) != wanted:
                few = len(arguments) < wanted
                codes = ua.StatusCodes
                return ua.StatusCode(ua.UInt32(codes.BadArgumentsMissing if few else codes.BadTooManyArguments))
            try:
                return await method(*(argument.Value for argument in arguments))
            except TypeError:
                return ua.StatusCode(ua.UInt32(ua.StatusCodes.BadTypeMismatch))

        self._server.link_method(node, call)

    async def announce(self, announcement: Announcement) -> None:
        """Write and raise what the line has to hear."""
        if isinstance(announcement, Shown):
            await self._show(announcement)
        elif isinstance(announcement, Result):
            await self._show_result(announcement)
        elif isinstance(announcement, RecipePrepared):
            await self._raise("RecipePrepared", InternalId=self.recipe_id(announcement.recipe_id),
                              ExternalId=self.recipe_id(announcement.recipe_id, external=True))  # fmt: skip
        else:
            names = {JobStarted: "JobStarted", AcquisitionDone: "AcquisitionDone", Ready: "Ready"}
            await self._raise(names[type(announcement)], JobId=self.identity("JobId", announcement.job_id))

    async def beat(self) -> None:
        """Count the heartbeat up."""
        self._beats = (self._beats + 1) & 0xFFFF_FFFF
        await self.write("Heartbeat", self._beats)

    async def write(self, name: str, value: Any) -> None:
        """Set one of the station's plain variables."""
        await self._nodes[name].write_value(value, self._nodes_types[name])

    # Values of the specification's types, as Variants

    def identity(self, kind: str, text: str) -> Any:
        """JobId, MeasId, PartId, ProductId or ResultId; null when there is none (a job's and a result's always is)."""
        ua = opcua_types()
        if not text and kind not in ("JobId", "ResultId"):
            return ua.Variant(None)
        return ua.Variant(getattr(ua, f"{kind}DataType")(Id=text), ua.VariantType.ExtensionObject)

    def recipe_id(self, text: str, *, external: bool = False) -> Any:
        """The id of a recipe as the line or as the station names it: both are the same text."""
        ua = opcua_types()
        return ua.Variant(getattr(ua, f"RecipeId{'External' if external else 'Internal'}DataType")(Id=text))

    def result(self, result: Result) -> Any:
        """The structure that GetResultById gives."""
        ua = opcua_types()
        fields = {name: one.Value for name, one in self._result_fields(result).items()}
        state = fields.pop("ResultState")
        return ua.ResultDataType(ResultState=ua.Int32(state), HasTransferableDataOnFile=False, **fields)

    def _result_fields(self, result: Result) -> dict[str, Any]:
        ua = opcua_types()
        record, order, kinds = result.record, result.order, ua.VariantType
        began_at = record.judged_at - timedelta(
            milliseconds=record.total_ms
        )  # not trigger.at: the clock may have been set
        times = ua.ProcessingTimesDataType(StartTime=began_at, EndTime=record.judged_at)
        recipe_id = record.recipe_id or order.recipe_id
        return {
            "ResultId": self.identity("ResultId", record.record_id),
            "JobId": self.identity("JobId", result.job_id),
            "MeasId": self.identity("MeasId", order.meas_id),
            "PartId": self.identity("PartId", order.part_id),
            "ProductId": self.identity("ProductId", order.product_id),
            "ResultState": ua.Variant(int(result.state), kinds.Int32),
            "IsPartial": ua.Variant(False, kinds.Boolean),
            "IsSimulated": ua.Variant(record.simulated, kinds.Boolean),
            "CreationTime": ua.Variant(record.judged_at, kinds.DateTime),
            "ProcessingTimes": ua.Variant(times, kinds.ExtensionObject),
            "InternalRecipeId": self.recipe_id(recipe_id),
            "ExternalRecipeId": self.recipe_id(order.recipe_id, external=True),
            "InternalConfigurationId": ua.Variant(ua.ConfigurationIdDataType(Id=record.recipe_sha256)),
            "ResultContent": ua.Variant(content(result), kinds.Variant),
        }

    # Inside

    @property
    def _nodes_types(self) -> dict[str, Any]:
        ua = opcua_types()
        return {name: getattr(ua.VariantType, kind) for name, kind, _ in _STATION_VARIABLES}

    def _id(self, number: int) -> Any:
        ua = opcua_types()
        return ua.NodeId(ua.Int32(number), ua.Int16(self._spec))

    async def _child(self, path: tuple[str, ...]) -> "Node":
        return await self._system.get_child([f"{self._spec}:{name}" for name in path])

    @staticmethod
    async def _arguments(method: "Node") -> list[Any]:
        for child in await method.get_properties():
            if (await child.read_browse_name()).Name == "InputArguments":
                return list(await child.read_value() or [])
        return []

    async def _take_away(self, path: tuple[str, ...]) -> None:
        """Delete a part of our object, and only its parent's references to it: asyncua would search every node."""
        ua = opcua_types()
        from asyncua.common.manage_nodes import delete_nodes

        session, node = self._server.iserver.isession, await self._child(path)
        parent = await self._child(path[:-1]) if path[:-1] else self._system
        wanted = [
            ua.DeleteReferencesItem(
                SourceNodeId=parent.nodeid,
                ReferenceTypeId=reference.ReferenceTypeId,
                IsForward=True,
                TargetNodeId=reference.NodeId,
                DeleteBidirectional=False,
            )
            for reference in await parent.get_references(direction=ua.BrowseDirection.Forward)
            if reference.NodeId == node.nodeid
        ]
        await session.delete_references(wanted)
        await delete_nodes(session, [node], recursive=True, delete_target_references=False)

    async def _find_machine(self, name: str, path: tuple[str, ...]) -> None:
        ua = opcua_types()
        machine = await self._child(path)
        state = await machine.get_child("0:CurrentState")
        self._nodes[name] = machine
        self._nodes[f"{name}.state"] = state
        self._nodes[f"{name}.id"] = await state.get_child("0:Id")
        children = {str((await child.read_browse_name()).Name): child for child in await state.get_properties()}
        number = children.get("Number")
        if number is None:
            number = await state.add_property(
                ua.NodeId(f"{self._name}.{name}.Number", self._own), "0:Number", ua.Variant(0, ua.VariantType.UInt32)
            )
        self._nodes[f"{name}.number"] = number

    async def _add_variables(self) -> None:
        ua = opcua_types()
        station = await self._system.add_object(
            ua.NodeId(f"{self._name}.Station", self._own), ua.QualifiedName("Station", self._own)
        )
        for name, kind, value in _STATION_VARIABLES:
            self._nodes[name] = await station.add_variable(
                ua.NodeId(f"{self._name}.Station.{name}", self._own),
                ua.QualifiedName(name, self._own),
                ua.Variant(value, getattr(ua.VariantType, kind)),
            )

    async def _show(self, shown: Shown) -> None:
        before, self._shown = self._shown, shown
        if shown.vision != before.vision:
            name, was = _word(shown.vision), _word(before.vision)
            await self._show_machine("vision", name, _VISION_STATES[shown.vision], int(shown.vision))
            await self._raise_change("vision", was, name)
        if shown.automatic != before.automatic:
            name, was = _word(shown.automatic), _word(before.automatic)
            await self._show_machine("automatic", name, _AUTOMATIC_STATES.get(shown.automatic), int(shown.automatic))
            await self._raise_change("automatic", was, name)

    async def _show_machine(self, machine: str, name: str, state: int | None, number: int) -> None:
        ua = opcua_types()
        node_id = ua.NodeId() if state is None else self._id(state)
        await self._nodes[f"{machine}.number"].write_value(number, ua.VariantType.UInt32)
        await self._nodes[f"{machine}.id"].write_value(node_id, ua.VariantType.NodeId)
        await self._nodes[f"{machine}.state"].write_value(ua.LocalizedText(name), ua.VariantType.LocalizedText)

    async def _raise_change(self, machine: str, was: str, name: str) -> None:
        ua = opcua_types()
        texts = {"FromState": was, "ToState": name, "Transition": f"{was}To{name}"}
        kind = ua.VariantType.LocalizedText
        fields = {field: ua.Variant(ua.LocalizedText(text), kind) for field, text in texts.items()}
        source = self._nodes[machine]
        await self._raise(
            "StateChanged",
            SourceNode=ua.Variant(source.nodeid),
            SourceName=ua.Variant((await source.read_browse_name()).Name),
            **fields,
        )

    async def _show_result(self, result: Result) -> None:
        judged = {
            "LastPartId": result.order.part_id,
            "LastResultId": result.record.record_id,
            "LastResultState": int(result.state),
            "LastVerdict": int(result.verdict),
            "LastVerdictName": result.verdict.name,
            "LastReasonCode": reason_code(result.reasons[0].rule_id) if result.reasons else 0,
            "LastJobId": result.job_id,  # last, so that who sees it sees the rest of its result
        }
        for name, value in judged.items():
            await self.write(name, value)
        await self._raise("ResultReady", **self._result_fields(result))

    async def _raise(self, name: str, **fields: Any) -> None:
        """Raise an event at the vision system and, as for all events, at the Server object."""
        ua = opcua_types()
        generator = self._events[name]
        for field, variant in fields.items():
            # asyncua sends null for a field whose type it was not told.
            generator.event.add_property(field, variant.Value, variant.VariantType)
        generator.event.Message = ua.LocalizedText(name)
        generator.event.emitting_node = self._system.nodeid
        await generator.trigger()
        generator.event.emitting_node = self._server.nodes.server.nodeid
        await self._server.iserver.isession.subscription_service.trigger_event(generator.event)


def _with_complete_ids(nodeset: str) -> str:
    """The nodeset with the fields of BinaryIdBaseDataType written out in its three subtypes.

    The file leaves inherited fields out, and asyncua 2.1 then takes the base type for each of the three: a line that
    checks the type of a recipe's id would refuse ours, and asyncua could not read the line's.
    """
    inherited = nodeset.index("<Definition", nodeset.index(f'<UADataType NodeId="ns=1;i={_BINARY_ID_TYPE}"'))
    end = nodeset.index("</Definition>", inherited) + len("</Definition>")
    definition = nodeset[inherited:end]
    for number in _ID_TYPES:
        start = nodeset.index(f'<UADataType NodeId="ns=1;i={number}"')
        name = nodeset[nodeset.index('BrowseName="', start) + len('BrowseName="') :].partition('"')[0]
        close = nodeset.index("</UADataType>", start)
        empty = f'<Definition Name="{name}" />'
        own = definition.replace("1:BinaryIdBaseDataType", name)
        nodeset = nodeset[:start] + nodeset[start:close].replace(empty, own) + nodeset[close:]
    return nodeset


def content(result: Result) -> list[Any]:
    """ResultContent, in the order that the page for the PLC programmer gives."""
    ua = opcua_types()
    kinds, found = ua.VariantType, _findings(result)
    shown = found[:MOST_FINDINGS]
    code = reason_code(result.reasons[0].rule_id) if result.reasons else 0
    return [
        ua.Variant(int(result.verdict), kinds.Int32),
        ua.Variant(result.verdict.name, kinds.String),
        ua.Variant(code, kinds.Int32),
        ua.Variant(len(found), kinds.UInt32),
        ua.Variant([reason.rule_id for reason in result.reasons], kinds.String, is_array=True),
        ua.Variant([reason.text for reason in result.reasons], kinds.String, is_array=True),
        ua.Variant([finding.defect_class for finding in shown], kinds.String, is_array=True),
        ua.Variant([finding.score for finding in shown], kinds.Double, is_array=True),
        ua.Variant([side for finding in shown for side in finding.region.xyxy_px], kinds.Double, is_array=True),
        ua.Variant(result.record.serial, kinds.String),
    ]


def _findings(result: Result) -> list[Detection]:
    """The findings that the verdict rests on, each once."""
    return list(dict.fromkeys(found for reason in result.reasons for found in reason.detections))


def _word(state: Vision | Automatic) -> str:
    return "" if state == Automatic.NONE else state.name.replace("_", " ").title().replace(" ", "")

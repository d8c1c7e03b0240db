"""Line controller over OPC UA, after OPC 40100-1 (Machine Vision): the station is the server, the PLC the client.

* ``jobs``      the whole exchange as plain Python, without thread, clock or network
* ``nodes``     the address space: objects, methods and events of the companion specification
* ``methods``   what the line may call
* ``guard``     what a connection may do before it has logged in, and how much it may send
* ``security``  certificates, trusted clients, users and their passwords
* ``controller``  the server in its own thread, as the station sees it

``Opc.Ua.MachineVision.NodeSet2.xml`` is the OPC Foundation's, under its MIT licence (text in the file).
The page for the PLC programmer is ``deploy/opcua.md``.
"""

-- Prints an extension as it is in this database, fact after fact, in an order that does not
-- depend on how it came to be so: two that are equal print the same.  For psql:
--
--	psql -X -q -At -v ON_ERROR_STOP=1 -v extension=NAME -f extension.sql
--
-- That is the version; of each member its owner, definition, comment and privileges, also
-- those that a dump takes for granted; what is dumped of which table; what is in the schemas
-- without being a member; and the rows that the script inserted, less what differs from one
-- installation to the next: times, ids of transactions, and what a default computed.

SET search_path = pg_catalog;

CREATE TEMPORARY VIEW member AS
	SELECT d.classid, d.objid, i.type, i.identity
	FROM pg_extension e
	JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e',
		pg_identify_object(d.classid, d.objid, 0) i
	WHERE e.extname = :'extension';

CREATE TEMPORARY VIEW relation AS
	SELECT c.*, m.identity FROM member m JOIN pg_class c ON c.oid = m.objid
	WHERE m.classid = 'pg_class'::regclass;

-- As text, with the names of roles
CREATE FUNCTION pg_temp.privileges(acl aclitem[], kind text, owner oid) RETURNS text
LANGUAGE sql AS $$
	SELECT string_agg(format('%s by %s to %s%s', privilege_type, grantor::regrole,
			CASE grantee WHEN 0 THEN 'public' ELSE grantee::regrole::text END,
			CASE WHEN is_grantable THEN ' with grant option' END), ', '
		ORDER BY grantee::regrole::text COLLATE "C", privilege_type COLLATE "C")
	FROM aclexplode(coalesce(acl, acldefault(kind::"char", owner)))
$$;

CREATE TEMPORARY TABLE fact (line text NOT NULL);

INSERT INTO fact
	SELECT format('extension %s: version %s, in schema %s, owned by %s, %s', extname, extversion,
		extnamespace::regnamespace, extowner::regrole,
		CASE WHEN extrelocatable THEN 'relocatable' ELSE 'not relocatable' END)
	FROM pg_extension WHERE extname = :'extension'
UNION ALL
	SELECT format('dumped: %s %s', t.id::regclass, t.condition)
	FROM pg_extension e, unnest(e.extconfig, e.extcondition) t(id, condition) WHERE e.extname = :'extension'
UNION ALL
	SELECT format('%s %s: comment %L', type, identity, obj_description(objid, classid::regclass::text::name))
	FROM member
UNION ALL
	SELECT format('schema %s: owned by %s, privileges %s', nspname, nspowner::regrole,
		pg_temp.privileges(nspacl, 'n', nspowner))
	FROM member JOIN pg_namespace n ON n.oid = objid AND classid = 'pg_namespace'::regclass
UNION ALL
	SELECT format('%s %s: owned by %s, %s', type, identity, proowner::regrole, CASE
			WHEN prokind IN ('f', 'p') THEN pg_get_functiondef(p.oid)
			ELSE format('%s returns %s', prokind, prorettype::regtype) END)
	FROM member JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
UNION ALL
	SELECT format('%s %s: privileges %s', type, identity, pg_temp.privileges(proacl, 'f', proowner))
	FROM member JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
UNION ALL
	SELECT format('type %s: owned by %s, %s, privileges %s', identity, typowner::regrole,
		format_type(typbasetype, typtypmod), pg_temp.privileges(typacl, 'T', typowner))
	FROM member JOIN pg_type t ON t.oid = objid AND classid = 'pg_type'::regclass
UNION ALL
	SELECT format('%s %s: owned by %s, persistence %s, options %s, row security %s %s, replica identity %s,'
		' partition key %s, partition of %s %s', relkind, identity, relowner::regrole, relpersistence, reloptions,
		relrowsecurity, relforcerowsecurity, relreplident, pg_get_partkeydef(oid),
		(SELECT string_agg(inhparent::regclass::text, ', ') FROM pg_inherits WHERE inhrelid = r.oid),
		pg_get_expr(relpartbound, oid))
	FROM relation r
UNION ALL
	SELECT format('%s %s: privileges %s', relkind, identity,
		pg_temp.privileges(relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END, relowner))
	FROM relation
UNION ALL
	SELECT format('%s %s: %s', relkind, identity, pg_get_viewdef(oid)) FROM relation WHERE relkind IN ('v', 'm')
UNION ALL
	-- their order counts, not what was dropped between them
	SELECT format('%s %s: column %s, %s %s, collation %s, storage %s %s, statistics %s, options %s,%s%s'
		' default %s, privileges %s, comment %L', relkind, identity,
		row_number() OVER (PARTITION BY r.oid ORDER BY attnum), attname, format_type(atttypid, atttypmod),
		CASE WHEN attcollation <> 0 THEN attcollation::regcollation END, attstorage, attcompression,
		nullif(attstattarget, -1),
		-- some minor releases keep a counter there
		(SELECT array_agg(o ORDER BY o COLLATE "C") FROM unnest(attoptions) o WHERE o NOT LIKE 'pg\_attver=%'),
		CASE WHEN attnotnull THEN ' not null' END,
		concat(attidentity, attgenerated), pg_get_expr(adbin, adrelid), CASE WHEN attacl IS NOT NULL THEN
			pg_temp.privileges(attacl, 'c', relowner) END, col_description(r.oid, attnum))
	FROM relation r JOIN pg_attribute a ON attrelid = r.oid AND attnum > 0 AND NOT attisdropped
	LEFT JOIN pg_attrdef ON adrelid = r.oid AND adnum = attnum
UNION ALL
	SELECT format('%s %s: constraint %s %s, validated %s, comment %L', relkind, identity, conname,
		pg_get_constraintdef(k.oid), convalidated, obj_description(k.oid, 'pg_constraint'))
	FROM relation r JOIN pg_constraint k ON conrelid = r.oid
UNION ALL
	SELECT format('%s %s: %s, valid %s, clustered %s, replica identity %s, comment %L', relkind, identity,
		pg_get_indexdef(indexrelid), indisvalid, indisclustered, indisreplident, obj_description(indexrelid, 'pg_class'))
	FROM relation r JOIN pg_index ON indrelid = r.oid
UNION ALL
	SELECT format('%s %s: %s, enabled %s, comment %L', relkind, identity, pg_get_triggerdef(t.oid), tgenabled,
		obj_description(t.oid, 'pg_trigger'))
	FROM relation r JOIN pg_trigger t ON tgrelid = r.oid AND NOT tgisinternal
UNION ALL
	SELECT format('%s %s: %s', relkind, identity, pg_get_ruledef(w.oid))
	FROM relation r JOIN pg_rewrite w ON ev_class = r.oid AND rulename <> '_RETURN'
UNION ALL
	SELECT format('%s %s: policy %s %s %s for %s using %s check %s', relkind, identity, polname, polcmd, polpermissive,
		polroles::regrole[], pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
	FROM relation r JOIN pg_policy ON polrelid = r.oid
UNION ALL
	SELECT format('S %s: %s from %s to %s by %s, start %s, cache %s, cycle %s', identity, seqtypid::regtype, seqmin, seqmax,
		seqincrement, seqstart, seqcache, seqcycle)
	FROM relation r JOIN pg_sequence ON seqrelid = r.oid
UNION ALL
	-- those that a dump leaves out, unless the object would have them anyway
	SELECT format('%s %s: privileges of the script %s %s', type, identity, i.objsubid,
		pg_temp.privileges(initprivs, kind, owner))
	FROM member m
	JOIN pg_init_privs i ON i.classoid = m.classid AND i.objoid = m.objid
	JOIN (SELECT 'pg_class'::regclass, oid, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END, relowner FROM pg_class
		UNION ALL SELECT 'pg_proc'::regclass, oid, 'f', proowner FROM pg_proc
		UNION ALL SELECT 'pg_namespace'::regclass, oid, 'n', nspowner FROM pg_namespace
		UNION ALL SELECT 'pg_type'::regclass, oid, 'T', typowner FROM pg_type) o(classid, objid, kind, owner)
		ON o.classid = m.classid AND o.objid = m.objid
	WHERE pg_temp.privileges(initprivs, kind, owner) <> pg_temp.privileges(NULL, kind, owner) OR i.objsubid <> 0
UNION ALL
	SELECT format('not a member: %s', pg_describe_object(o.classid, o.objid, 0))
	FROM member m
	JOIN (SELECT relnamespace, 'pg_class'::regclass, oid FROM pg_class
			WHERE relkind NOT IN ('i', 'I', 't', 'c')
		UNION ALL SELECT pronamespace, 'pg_proc'::regclass, oid FROM pg_proc
		UNION ALL SELECT typnamespace, 'pg_type'::regclass, oid FROM pg_type
			WHERE typtype <> 'c' AND typelem = 0) o(schema, classid, objid) ON o.schema = m.objid
	WHERE m.classid = 'pg_namespace'::regclass
		AND NOT EXISTS (SELECT FROM member i WHERE i.classid = o.classid AND i.objid = o.objid)
UNION ALL
	-- what has a definition that is not printed above
	SELECT format('%s %s', type, identity) FROM member;

SELECT format($$INSERT INTO fact SELECT format('%%s has %%s', %L, r) FROM (SELECT %s FROM ONLY %s) r$$, identity,
	(SELECT string_agg(CASE WHEN own THEN format('%I IS NOT NULL AS %1$I', attname) ELSE quote_ident(attname) END, ', '
			ORDER BY attname COLLATE "C")
		FROM pg_attribute
		LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum,
			-- computed, or of a type that tells one installation from another
			LATERAL (SELECT pg_get_expr(adbin, adrelid) LIKE '%(%' OR atttypid::regtype IN
				('timestamptz', 'timestamp', 'xid8', 'pg_snapshot', 'oid', 'uuid')) is_own(own)
		WHERE attrelid = r.oid AND attnum > 0 AND NOT attisdropped), oid::regclass)
FROM relation r WHERE relkind = 'r' \gexec

SELECT line FROM fact ORDER BY line COLLATE "C";

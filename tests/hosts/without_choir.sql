SELECT group_concat(path, ' ') FROM (SELECT path FROM artifacts ORDER BY path); -- /notes/fox.md /notes/pasta.md
UPDATE artifacts SET path = '/den/fox.md' WHERE path = '/notes/fox.md' RETURNING path; -- /den/fox.md
INSERT INTO user_settings(setting_name, setting_value) VALUES('theme', 'dark') RETURNING setting_value; -- dark
DELETE FROM artifacts WHERE path = '/notes/pasta.md' RETURNING path; -- /notes/pasta.md
SELECT group_concat(action_type, ' ') FROM (SELECT action_type FROM action_log ORDER BY seq); -- ARTIFACT_CREATE ARTIFACT_CREATE CONVERSATION_CREATE MESSAGE_ADD ARTIFACT_MOVE SETTING_SET ARTIFACT_DELETE
PRAGMA integrity_check; -- ok
